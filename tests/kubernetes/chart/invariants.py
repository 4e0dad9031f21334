"""What must be true of every rendering, whatever the values are. Each function is one check."""

import re
import tomllib

from .helm import component_of, containers_of

SECRET_KEYS = re.compile(r"password|secret|token|access_key|private", re.IGNORECASE)
SECRET_ENVIRONMENT = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY")
GATEWAYS = {"embedded", "ws", "http", "quic"}


def seconds(text):
    """A time as chappe.toml has it."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|[smhd])", text))


def config_is_toml_and_listens_where_pods_are_reached(objects, values):
    listen = tomllib.loads(objects.toml())["listen"]
    for name, address in listen.items():
        assert address.startswith("0.0.0.0:"), f"listen.{name} = {address}"
    assert listen["admin"] == "0.0.0.0:7401", "the probes ask there"


def grace_covers_the_drain(objects, values):
    drain = seconds(tomllib.loads(objects.toml())["gateway"]["drain"])
    for workload in objects.workloads():
        pod = workload["spec"]["template"]["spec"]
        grace, component = pod["terminationGracePeriodSeconds"], component_of(workload)
        hook = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if component in GATEWAYS:
            assert grace >= hook + drain + 10, f"{component}: {grace} s for {hook} + {drain} s and a stop"
        else:
            assert grace >= 10, f"{component}: {grace} s"


def services_lead_to_a_pod(objects, values):
    for service in objects.of("Service"):
        selector = service["spec"]["selector"]
        led = [one for one in objects.workloads() if selector.items() <= pod_labels(one).items()]
        name = service["metadata"]["name"]
        assert len(led) == 1, f"{name} leads to {len(led)} workloads"
        ports = {port["name"]: port for port in containers(led[0])[0]["ports"]}
        for port in service["spec"]["ports"]:
            target = ports.get(port["targetPort"])
            assert target, f"{name}: no port {port['targetPort']}"
            assert target["protocol"] == port["protocol"], f"{name}: {port['protocol']}"


def tcp_and_udp_are_services_of_their_own(objects, values):
    for service in objects.of("Service"):
        assert len(service["spec"]["ports"]) == 1, service["metadata"]["name"]
    udp = [one for one in objects.of("Service") if one["spec"]["ports"][0]["protocol"] == "UDP"]
    quic = (values.get("gateways") or {}).get("quic", {}).get("enabled", True)
    assert len(udp) == (1 if quic else 0), f"{len(udp)} Services of UDP"


def selectors_do_not_overlap(objects, values):
    for one in objects.workloads():
        selector = one["spec"]["selector"]["matchLabels"]
        hit = [other["metadata"]["name"] for other in objects.of("Deployment", "StatefulSet", "Job", "Pod")
               if selector.items() <= pod_labels(other).items()]
        assert hit == [one["metadata"]["name"]], f"{one['metadata']['name']} selects {hit}"


def nothing_immutable_or_of_a_pod_changes_with_the_version(objects, values):
    for one in objects.workloads():
        claims = one["spec"].get("volumeClaimTemplates", [])
        for labels in [pod_labels(one), *[claim["metadata"]["labels"] for claim in claims]]:
            changing = {"helm.sh/chart", "app.kubernetes.io/version"} & labels.keys()
            assert not changing, f"{one['metadata']['name']}: {changing}"


def budgets_fit(objects, values):
    budgets = objects.of("PodDisruptionBudget")
    clustered = values["mode"] == "clustered"
    covered = []
    for budget in budgets:
        selector = budget["spec"]["selector"]["matchLabels"]
        hit = [one for one in objects.workloads() if selector.items() <= pod_labels(one).items()]
        assert len(hit) == 1, budget["metadata"]["name"]
        replicas, gone = hit[0]["spec"]["replicas"], budget["spec"]["maxUnavailable"]
        assert gone < replicas or replicas == 1, f"{budget['metadata']['name']}: {gone} of {replicas}"
        covered.append(hit[0]["metadata"]["name"])
    every = [one["metadata"]["name"] for one in objects.workloads()]
    # The only pod of mode embedded may always be evicted: a budget would hold up the node for ever.
    assert sorted(covered) == (sorted(every) if clustered else []), covered


def no_secret_is_rendered(objects, values):
    assert not objects.of("Secret"), "the chart makes no Secret"
    for one in objects.of("ConfigMap"):
        assert list(one["data"]) == ["chappe.toml"]
        for path, value in leaves(tomllib.loads(one["data"]["chappe.toml"])):
            assert not SECRET_KEYS.search(path), f"{path} in a ConfigMap"
            assert not re.search(r"://[^/]*@", str(value)), f"{path} has a password in its URL"
    for owner, pod in objects.pods():
        for container in containers_of(pod):
            for variable in container.get("env", []):
                if SECRET_ENVIRONMENT.search(variable["name"]):
                    assert "valueFrom" in variable, f"{owner['metadata']['name']}: {variable['name']}"


def secrets_go_where_they_are_needed(objects, values):
    allowed = {
        "CHAPPE_LOG__": {"broker", "prepare"},
        "CHAPPE_STORE__": {"broker", "prepare"},
        "CHAPPE_PRESENCE__": {"ws", "http", "quic"},
        "CHAPPE_BLOBS__": {"http", "prepare"},
    }
    for owner, pod in objects.pods():
        for variable in [one for container in containers_of(pod) for one in container.get("env", [])]:
            for prefix, components in allowed.items():
                if variable["name"].startswith(prefix):
                    assert component_of(owner) in components, f"{component_of(owner)}: {variable['name']}"


def files_that_are_named_are_mounted(objects, values):
    config = tomllib.loads(objects.toml())
    users = {"log": {"broker", "prepare"}, "store": {"broker", "prepare"}, "uplink": {"broker", "ws", "http", "quic"}}
    for owner, pod in objects.pods():
        if component_of(owner) == "test":
            continue
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        claims = {claim["metadata"]["name"] for claim in owner["spec"].get("volumeClaimTemplates", [])}
        for container in containers_of(pod):
            files = set()
            for mount in container["volumeMounts"]:
                volume = volumes.get(mount["name"])
                assert volume or mount["name"] in claims, f"no volume {mount['name']}"
                for item in (volume or {}).get("secret", {}).get("items", []):
                    files.add(f"{mount['mountPath']}/{item['path']}")
            named = [value for path, value in leaves(config)
                     if str(value).startswith("/etc/chappe/") and component_of(owner) in users[path.split(".")[0]]]
            named += [one["value"] for one in container["env"] if one["name"].startswith("CHAPPE_TLS__")]
            assert set(named) == files, f"{component_of(owner)}: named {named}, mounted {sorted(files)}"


def pods_are_restricted(objects, values):
    """What the Pod Security level `restricted` asks for, and more."""
    for owner, pod in objects.pods():
        name = owner["metadata"]["name"]
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, f"{name}: CHAPPE_… of a Service would be settings"
        security = pod["securityContext"]
        assert security["runAsNonRoot"] and security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            assert not pod.get(key), f"{name}: {key}"
        for volume in pod.get("volumes", []):
            assert set(volume) & {"configMap", "secret", "emptyDir"}, f"{name}: {volume}"
        for container in containers_of(pod):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False and security["privileged"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
            assert "memory" in container["resources"]["limits"], name


def probes_ask_the_admin_listener(objects, values):
    for workload in objects.workloads():
        container = containers(workload)[0]
        assert {"name": "admin", "containerPort": 7401, "protocol": "TCP"} in container["ports"]
        for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            assert container[probe]["httpGet"] == {"path": path, "port": "admin"}, probe
        waits = container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"]
        assert waits >= 300, f"{workload['metadata']['name']} has {waits} s to start"


def embedded_needs_nothing_else(objects, values):
    if values["mode"] != "embedded":
        return
    assert {one["kind"] for one in objects.all} <= {"ConfigMap", "Service", "StatefulSet", "Pod", "Ingress"}
    [one] = objects.workloads()
    assert one["spec"]["replicas"] == 1 and len(one["spec"]["volumeClaimTemplates"]) == 1


def roles_are_split(objects, values):
    if values["mode"] != "clustered":
        return
    for one in objects.workloads():
        component = component_of(one)
        role = "broker" if component == "broker" else f"gateway-{component}"
        arguments = containers(one)[0]["args"]
        assert arguments == ["serve", "--config=/etc/chappe/chappe.toml", f"--role={role}"], arguments
        assert one["kind"] == ("StatefulSet" if component == "broker" else "Deployment")
    headless = objects.one("Service", "broker")
    assert headless["spec"]["clusterIP"] == "None" and headless["spec"]["publishNotReadyAddresses"]
    expected = f"{headless['metadata']['name']}.chat.svc:7402"
    assert tomllib.loads(objects.toml())["uplink"]["brokers"] == [expected]


def the_job_has_what_it_needs_before_the_release_is_there(objects, values):
    jobs = objects.of("Job")
    wanted = values["mode"] == "clustered" and (values.get("prepare") or {}).get("enabled", True)
    assert len(jobs) == int(wanted)
    for job in jobs:
        pod = job["spec"]["template"]["spec"]
        steps = [container["args"][:2] for container in containers_of(pod)]
        makes_bucket = values.get("s3", {}).get("url") and values.get("prepare", {}).get("bucket", True)
        bucket = [["blobs", "create"]] if makes_bucket else []
        assert steps == [["schema", "apply"], *bucket, ["log", "create"]], steps
        [name] = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
        [own] = [one for one in objects.of("ConfigMap") if one["metadata"]["name"] == name]
        weights = [int(one["metadata"]["annotations"]["helm.sh/hook-weight"]) for one in (own, job)]
        assert weights[0] < weights[1] and own["data"]["chappe.toml"] == objects.toml()
        for one in (own, job):
            assert one["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


def pod_labels(one):
    metadata = one["metadata"] if one["kind"] == "Pod" else one["spec"]["template"]["metadata"]
    return metadata["labels"]


def containers(workload):
    return workload["spec"]["template"]["spec"]["containers"]


def leaves(table, path=""):
    """(path, value) of everything in a TOML document."""
    for key, value in table.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            yield from leaves(value, here)
        else:
            yield here, value


# Every function that takes a rendering and its values.
CHECKS = [
    value
    for value in list(globals().values())
    if getattr(value, "__code__", None) and value.__code__.co_varnames[:2] == ("objects", "values")
]
