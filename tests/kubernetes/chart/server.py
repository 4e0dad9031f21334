"""The server reads every chappe.toml that the chart renders, in each pod's environment."""

import os
import subprocess
import tempfile

from .helm import component_of, containers_of, objects, value_sets


def checks(helm, binary):
    for path in value_sets():
        name = os.path.basename(path).removesuffix(".yaml")
        yield f"the server takes {name}", lambda path=path: takes(helm, binary, path)


def takes(helm, binary, path):
    found = objects(helm, path)
    for owner, pod in found.pods():
        if component_of(owner) == "test":
            continue
        for container in containers_of(pod):
            with tempfile.TemporaryDirectory() as folder:
                file = os.path.join(folder, "chappe.toml")
                roles = [part.removeprefix("--role=") for part in container["args"] if part.startswith("--role=")]
                with open(file, "w") as config:
                    # What --role says; it has no variable.
                    config.write(f"roles = {roles}\n{found.toml()}")
                environment = {one["name"]: one.get("value", "from-a-secret") for one in container["env"]}
                if environment.get("CHAPPE_PRESENCE__URL"):
                    environment["CHAPPE_PRESENCE__URL"] = "redis://:secret@redis:6379"
                environment["CHAPPE_CONFIG"] = file
                done = subprocess.run([binary, "config", "check"], env=environment, capture_output=True, text=True, timeout=30)
                assert done.returncode == 0, f"{component_of(owner)}: {done.stderr}"
