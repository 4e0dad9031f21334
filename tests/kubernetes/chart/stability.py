"""What restarts pods and what does not, names at their longest, and the test's own script."""

import http.server
import subprocess
import threading

from .helm import Objects, component_of, objects, value_set


def checks(helms):
    for helm in helms:
        for name in ("embedded", "clustered"):
            path = value_set(name)
            yield f"{helm.name} {name}: a changed configuration restarts the pods", lambda h=helm, p=path: restarts(h, p)
            yield f"{helm.name} {name}: what is not configuration restarts nothing", lambda h=helm, p=path: stays(h, p)
            yield f"{helm.name} {name}: names fit", lambda h=helm, p=path: fits(h, p)
    yield "the test's script finds who answers", lambda: reaches(helms[0])


def templates(found):
    return {one["metadata"]["name"]: one["spec"]["template"] for one in found.workloads()}


def checksums(found):
    return {name: one["metadata"]["annotations"]["checksum/config"] for name, one in templates(found).items()}


def restarts(helm, path):
    before = checksums(objects(helm, path))
    assert before
    for change in ("config.log.keep=2d", "stop.drainSeconds=40", "config.telemetry.json=false"):
        after = checksums(objects(helm, path, change))
        same = [name for name in before if before[name] == after[name]]
        assert not same, f"{change}: {same} would go on with the old one"


def stays(helm, path):
    before = templates(objects(helm, path))
    changes = ("services.http.annotations.a=b", "services.quic.type=NodePort", "test.tokenKey=jwt")
    after = templates(objects(helm, path, *changes))
    assert before == after


def fits(helm, path):
    """A release has at most 53 characters; a Service, and what Kubernetes puts behind a name, 63."""
    found = Objects(helm.render(path, release="r" * 53))
    for one in found.all:
        name = one["metadata"]["name"]
        # A StatefulSet's and a Deployment's pods carry a revision of up to 11 in a label or a name.
        longest = 63 - 11 if one["kind"] in ("StatefulSet", "Deployment", "Job") else 63
        assert len(name) <= longest, f"{one['kind']} {name}"
        for value in one["metadata"]["labels"].values():
            assert len(value) <= 63, value


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def reaches(helm):
    [pod] = objects(helm, value_set("embedded")).of("Pod")
    assert component_of(pod) == "test"
    script = pod["spec"]["containers"][0]["args"][0].replace("demo-chappe-http 7400", "127.0.0.1 PORT")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = str(server.server_address[1])
        done = bash(script.replace("PORT", port))
        assert done.returncode == 0 and done.stdout == f"ok 127.0.0.1:{port}\n", done
        server.shutdown()
    # Nobody listens there any more; it need not be asked thirty times.
    done = bash(script.replace("PORT", port).replace("seq 30", "seq 2").replace("sleep 1", "sleep 0"))
    assert done.returncode == 1 and done.stdout == f"nobody answers at 127.0.0.1:{port}\n", done


def bash(script):
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, env={"PATH": "/usr/bin:/bin"})
