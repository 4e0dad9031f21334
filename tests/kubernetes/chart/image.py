"""The Dockerfile finds what it copies, and makes what the chart expects."""

import fnmatch
import os
import re
import tomllib

from .helm import REPOSITORY, objects, value_set


def checks(helms):
    yield "the image's user and ports are the chart's", lambda: image_fits(helms[0])
    yield "the build has every crate in its context", crates_are_in_the_context
    yield "the build takes binaries that there are", binaries_exist


def read(path):
    with open(os.path.join(REPOSITORY, path)) as file:
        return file.read()


def image_fits(helm):
    dockerfile = read("Dockerfile")
    [pod] = [one for owner, one in objects(helm, value_set("embedded")).pods() if owner["kind"] == "StatefulSet"]
    user = pod["securityContext"]["runAsUser"]
    assert f"\nUSER {user}:{user}\n" in dockerfile
    exposed = set(re.search(r"\nEXPOSE (.*)", dockerfile)[1].split())
    assert exposed == {"7400/tcp", "7400/udp", "7401/tcp", "7402/tcp"}, exposed
    variables = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
    assert f"CHAPPE_DATA={variables['CHAPPE_DATA']}" in dockerfile
    assert "\nHEALTHCHECK NONE\n" in dockerfile, "the probes are Kubernetes'"


def ignored(path):
    """Whether .dockerignore leaves a path out: the last pattern that fits decides."""
    out = False
    for line in read(".dockerignore").splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        keep, pattern = pattern.startswith("!"), pattern.lstrip("!").strip("/")
        parts = path.split("/")
        heads = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        if any(fnmatch.fnmatchcase(head, pattern) for head in heads):
            out = not keep
    return out


def crates_are_in_the_context():
    members = tomllib.loads(read("Cargo.toml"))["workspace"]["members"]
    assert members
    needed = ["Cargo.toml", "Cargo.lock", *[f"{member}/Cargo.toml" for member in members]]
    missing = [path for path in needed if ignored(path) or not os.path.exists(os.path.join(REPOSITORY, path))]
    assert not missing, missing
    leaking = [path for path in (".git/config", "target/debug/chappe", "chappe-data/secret") if not ignored(path)]
    assert not leaking, leaking


def binaries_exist():
    dockerfile = read("Dockerfile")
    built = set(re.findall(r"--bin (\S+)", dockerfile))
    assert built == {"chappe", "chappe-load"}
    manifests = read("server/Cargo.toml") + read("loadtest/Cargo.toml")
    for name in built:
        assert f'name = "{name}"' in manifests, name
    profile = re.search(r"--profile (\S+)", dockerfile)[1]
    assert profile in tomllib.loads(read("Cargo.toml"))["profile"], profile
