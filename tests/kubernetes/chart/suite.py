"""All checks, as (name, function)."""

import os

import yaml

from . import documents, image, invariants, server, stability
from .helm import HERE, Helm, objects, value_sets
from .validation import validates


def checks(root, binary):
    helms = [Helm(f"{root}/bin/{name}") for name in ("helm3", "helm4")]
    found = [*renderings(helms), *refusals(helms), *validates(root, helms)]
    for module in (stability, documents, image):
        found += module.checks(helms)
    if binary:
        found += server.checks(helms[1], os.path.abspath(binary))
    return found


def renderings(helms):
    for path in value_sets():
        name = os.path.basename(path).removesuffix(".yaml")
        with open(path) as file:
            values = yaml.safe_load(file)
        values.setdefault("mode", "embedded")
        for helm in helms:
            yield f"{helm.name} lints {name}", lambda helm=helm, path=path: lints(helm, path)
            for check in invariants.CHECKS:
                yield (
                    f"{helm.name} {name}: {check.__name__}",
                    lambda helm=helm, path=path, values=values, check=check: check(objects(helm, path), values),
                )
        yield f"{name} is the same with both", lambda path=path: same(helms, path)
        # Helm 3 prints notes only with a cluster; it has parsed them.
        yield f"{helms[1].name} {name}: notes", lambda path=path: notes(helms[1], path)


def lints(helm, path):
    done = helm.lint(path)
    assert done.returncode == 0, done.stdout + done.stderr


def notes(helm, path):
    text = helm.notes(path)
    assert "helm test --namespace chat demo" in text, text
    for broken in ("<nil>", "%!", "map[", "<no value>"):
        assert broken not in text, text


def same(helms, path):
    def by_name(helm):
        return {(one["kind"], one["metadata"]["name"]): one for one in objects(helm, path).all}

    assert by_name(helms[0]) == by_name(helms[1])


def refusals(helms):
    with open(os.path.join(HERE, "refused.yaml")) as file:
        cases = yaml.safe_load(file)
    for case in cases:
        for helm in helms:
            yield f"{helm.name} refuses {case['from']} with {case['set']}", lambda helm=helm, case=case: refuses(helm, case)


def refuses(helm, case):
    values = os.path.join(HERE, "values", f"{case['from']}.yaml")
    text = helm.refusal(values, [flag for one in case["set"] for flag in ("--set", one)])
    assert text is not None, "it was taken"
    words = text.replace("/", ".")
    for key in case["says"]:
        assert key in words, f"{key} is not named: {text}"
    for noise in ("nil pointer", "wrong type for value", "error calling"):
        assert noise not in text, text
    assert len(text) < 1500, text
