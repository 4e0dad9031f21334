"""Runs Helm, and reads what it rendered."""

import functools
import os
import subprocess
import tempfile

import yaml

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
CHART = os.path.join(REPOSITORY, "helm")
RELEASE, NAMESPACE = "demo", "chat"
TIMEOUT_S = 60


class Helm:
    """One version of Helm."""

    def __init__(self, program):
        self.program = program
        self.name = os.path.basename(program)
        # Neither the caller's repositories and plug-ins nor his cluster.
        self.home = tempfile.mkdtemp(prefix="helm-")
        self.environment = {"PATH": os.environ["PATH"], "HOME": self.home}

    def run(self, *arguments):
        return subprocess.run(
            [self.program, *arguments], env=self.environment, capture_output=True, text=True, timeout=TIMEOUT_S
        )

    def lint(self, values):
        return self.run("lint", "--strict", CHART, "--values", values)

    @functools.cache
    def render(self, values, *sets, release=RELEASE):
        """The rendered text; raises with Helm's words if it refuses."""
        flags = [flag for one in sets for flag in ("--set", one)]
        done = self.run("template", release, CHART, "--namespace", NAMESPACE, "--values", values, *flags)
        if done.returncode:
            raise AssertionError(done.stderr.strip())
        return done.stdout

    def refusal(self, values, sets):
        """What Helm says to values that it must not take; None if it takes them."""
        done = self.run("template", RELEASE, CHART, "--values", values, *sets)
        return done.stderr if done.returncode else None

    def notes(self, values):
        done = self.run(
            "install", RELEASE, CHART, "--namespace", NAMESPACE, "--dry-run=client", "--values", values
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split("NOTES:\n", 1)[1]


class Objects:
    """The objects of one rendering."""

    def __init__(self, text):
        self.all = [one for one in yaml.load_all(text, Loader) if one]

    def of(self, *kinds):
        return [one for one in self.all if one["kind"] in kinds]

    def one(self, kind, component=None):
        found = [one for one in self.of(kind) if component in (None, component_of(one))]
        assert len(found) == 1, f"{len(found)} {kind} {component or ''}"
        return found[0]

    def workloads(self):
        """What keeps pods running."""
        return self.of("Deployment", "StatefulSet")

    def pods(self):
        """(owner, pod spec) of every pod that there will be."""
        return [(one, one["spec"] if one["kind"] == "Pod" else one["spec"]["template"]["spec"])
                for one in self.of("Deployment", "StatefulSet", "Job", "Pod")]

    def toml(self):
        found = [one for one in self.of("ConfigMap") if component_of(one) == "config"]
        assert len(found) == 1
        return found[0]["data"]["chappe.toml"]


# The quick parser where PyYAML has it.
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.cache
def objects(helm, values, *sets):
    return Objects(helm.render(values, *sets))


def containers_of(pod):
    return pod.get("initContainers", []) + pod["containers"]


def component_of(one):
    return one["metadata"]["labels"]["app.kubernetes.io/component"]


def value_sets():
    folder = os.path.join(HERE, "values")
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]


def value_set(name):
    return os.path.join(HERE, "values", f"{name}.yaml")
