"""The objects are what Kubernetes takes, of the oldest version and of the newest."""

import os
import subprocess
import tempfile

from .helm import value_sets

VERSIONS = ("1.30.0", "1.37.0")


# Whether the validation would notice: a misspelt field is refused.
WRONG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndatta: {}\n"


def validates(root, helms):
    for version in VERSIONS:
        yield f"Kubernetes {version} takes the objects", lambda version=version: conforms(root, helms, version)


def conforms(root, helms, version):
    texts = {f"{helm.name}-{os.path.basename(path)}": helm.render(path) for helm in helms for path in value_sets()}
    done = kubeconform(root, version, texts | {"wrong.yaml": WRONG})
    refused = [line for line in done.stdout.splitlines() if line and not line.startswith("Summary")]
    assert len(refused) == 1 and "wrong.yaml" in refused[0] and "datta" in refused[0], done.stdout + done.stderr
    assert "Invalid: 1, Errors: 0, Skipped: 0" in done.stdout, done.stdout


def kubeconform(root, version, texts):
    schemas = f"{root}/schemas/{{{{.NormalizedKubernetesVersion}}}}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            with open(os.path.join(folder, name), "w") as file:
                file.write(text)
        return subprocess.run(
            [f"{root}/bin/kubeconform", "-strict", "-summary", "-kubernetes-version", version,
             "-schema-location", schemas, folder],
            capture_output=True, text=True, timeout=120,
        )
