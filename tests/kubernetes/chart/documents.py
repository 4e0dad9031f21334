"""The chart, its schema, its documentation and the project agree."""

import json
import os
import re
import tomllib

import yaml

from .helm import CHART, REPOSITORY


def checks(helms):
    yield "every value is documented", every_value_is_documented
    yield "every documented value exists", every_documented_value_exists
    yield "the schema knows every value and has no other", schema_and_values_agree
    yield "the chart has the version of the binary", versions_agree


def read(*path):
    with open(os.path.join(*path)) as file:
        return file.read()


def default_keys():
    return set(leaves(yaml.safe_load(read(CHART, "values.yaml"))))


def schema_keys():
    schema = json.loads(read(CHART, "values.schema.json"))

    def walk(node, path):
        while "$ref" in node:
            node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]]
        if not node.get("properties"):
            yield path
        for key, value in node.get("properties", {}).items():
            yield from walk(value, f"{path}.{key}" if path else key)

    return set(walk(schema, "")) - {"global"}


def documented_keys():
    """The first column of the tables of values; `a.{b,c}.d` is each of them."""
    section = read(REPOSITORY, "docs", "kubernetes.md").split("\n## Values\n", 1)[1].split("\n## ", 1)[0]
    found = set()
    for line in section.splitlines():
        if line.startswith("| `"):
            for name in re.findall(r"`([^`]+)`", line.split(" | ")[0]):
                found |= set(expand(name))
    return found


def expand(name):
    match = re.search(r"\{([^}]*)\}", name)
    if not match:
        return [name]
    return [one for part in match[1].split(",") for one in expand(name[: match.start()] + part + name[match.end() :])]


def leaves(node, path=""):
    if not isinstance(node, dict) or not node:
        yield path
        return
    for key, value in node.items():
        yield from leaves(value, f"{path}.{key}" if path else key)


def is_below(key, others):
    return any(key == other or key.startswith(f"{other}.") for other in others)


def every_value_is_documented():
    documented = documented_keys()
    assert len(documented) > 60, "the tables are found"
    missing = sorted(key for key in schema_keys() if not is_below(key, documented))
    assert not missing, missing


def every_documented_value_exists():
    known = schema_keys()
    unknown = sorted(key for key in documented_keys() if not any(is_below(other, {key}) for other in known))
    assert not unknown, unknown


def schema_and_values_agree():
    known = schema_keys()
    unknown = sorted(key for key in default_keys() if not is_below(key, known) and not any(is_below(k, {key}) for k in known))
    assert not unknown, unknown
    # What is under `config` has the server's own default when it is not set, and some maps are empty.
    defaults = default_keys()
    without = [key for key in known if not key.startswith("config.") and not is_below(key, defaults)]
    without = [key for key in without if not any(is_below(key, {one}) for one in defaults)]
    optional = re.compile(r"\.resources\.(requests|limits)\.(cpu|memory|ephemeral-storage)$")
    without = sorted(key for key in without if not optional.search(key))
    assert not without, f"values.yaml does not show {without}"


def versions_agree():
    chart = yaml.safe_load(read(CHART, "Chart.yaml"))
    assert chart["appVersion"] == tomllib.loads(read(REPOSITORY, "Cargo.toml"))["workspace"]["package"]["version"]
