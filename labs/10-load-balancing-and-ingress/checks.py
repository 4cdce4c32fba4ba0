"""Checks of lab 10: what is right is asked of Envoy, or of a real NGINX in a Pod of the check's own, or follows from fixed cases."""

from __future__ import annotations

import base64
import json
import shlex
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lab_utils.checks import CheckContext, check, setup
from lab_utils.labs.workspace import Workspace

PATHS = ("/tea", "/tea/", "/TEA", "/teapot", "/coffee", "/coffee/", "/coffeepot", "/coffee/iced", "/coffee/icedlatte", "/coffee/iced/large")
SERVED = ("tea", "coffee", "cake", "newtea")
OWN = "kio.example/lab-10"
MINE = "asked-by-the-check"  # what a check makes, and takes away again


# the starting state


@setup
def _(lab: Workspace) -> None:
    for name in SERVED:
        lab.kubectl("rollout", "status", f"deployment/{name}", "--timeout=180s", timeout=200)
    lab.kubectl("wait", "pod/client", "--for=condition=Ready", "--timeout=120s", timeout=140)
    lab.cluster.wait(lambda: asked(lab, shop(lab), "/tea") == "tea", timeout=60, why="Envoy does not serve the Ingress shop")


def shop(lab: Workspace) -> str:
    return f"shop-{lab.params['number']}.example"


# asking


def envoys(lab: Workspace) -> list[str]:
    return [node.ip for node in lab.cluster.workers]


def asked(lab: Workspace, host: str, path: str = "/", *, at: str = "", header: str = "") -> str:
    """One request from cp. The Deployment that answered, the status code, or curl's own word for what went wrong."""
    more = ["-H", header] if header else []
    line = ["curl", "-s", "--path-as-is", "--max-time", "5", "-w", r"\n%{http_code}", "-H", f"Host: {host}", *more]
    said = lab.node("cp").run([*line, f"http://{at or envoys(lab)[0]}{path}"], timeout=15)
    return outcome(said.stdout, said.code)


def asked_tls(lab: Workspace, host: str, path: str, certificate: str, *, at: str = "") -> str:
    """The same over TLS, trusting this certificate alone: another one, or one for another host, is an error of curl's."""
    where = at or envoys(lab)[0]
    line = ["curl", "-s", "--max-time", "5", "-w", r"\n%{http_code}", "--cacert", "/dev/stdin", "--resolve", f"{host}:443:{where}"]
    said = lab.node("cp").run([*line, f"https://{host}{path}"], input=certificate, timeout=15)
    return outcome(said.stdout, said.code)


def outcome(text: str, code: int) -> str:
    if code:
        return {7: "refused", 28: "timeout", 35: "no TLS", 60: "a certificate that is not trusted"}.get(code, f"curl's error {code}")
    body, _, status = text.rpartition("\n")
    return body.split("-")[0] if status == "200" else status


@contextmanager
def pod_of_its_own(lab: CheckContext) -> Iterator[str]:
    """A fresh Pod with NGINX and Python, so that nothing in it is the learner's but what the check puts there."""
    lab.kubectl("delete", "pod", MINE, "--ignore-not-found", "--grace-period=1", timeout=60)
    container = {"name": "nginx", "image": "docker.io/kio/ingress:1", "command": ["sleep", "600"]}
    spec = {"terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False, "containers": [container]}
    lab.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": MINE}, "spec": spec})
    try:
        lab.kubectl("wait", f"pod/{MINE}", "--for=condition=Ready", "--timeout=60s", timeout=80)
        yield MINE
    finally:
        lab.kubectl("delete", "pod", MINE, "--ignore-not-found", "--grace-period=1", "--wait=false")


def written(lab: CheckContext, pod: str, files: dict[str, str], folder: str) -> None:
    """Files into a folder of the Pod."""
    lines = [f"mkdir -p {folder}/certificates"]
    for name, text in files.items():
        lines.append(f"base64 -d > {shlex.quote(f'{folder}/{name}')} <<'END'\n{base64.encodebytes(text.encode()).decode()}END")
    done = lab.kubectl("exec", "-i", pod, "--", "sh", "-e", input="\n".join(lines) + "\n", check=False)
    lab.require(done.ok, expected="files that can be written", seen=done.stderr.strip(), look="the names of your files")


def serves(lab: CheckContext, pod: str, folder: str, look: str) -> None:
    """Start NGINX with the configuration in that folder, or say what it says."""
    done = lab.run_in(pod, f"nginx -t -q -c {folder}/nginx.conf && nginx -c {folder}/nginx.conf > /dev/null 2>&1", timeout=60)
    lab.require(done.ok, expected="a configuration that nginx -t takes", seen=(done.stdout + done.stderr).strip()[-400:], look=look)


ALL_OF = """
import json, subprocess, sys
for url, host, more in json.load(sys.stdin):
    line = ["curl", "-s", "--path-as-is", "--max-time", "5", "-w", r"\\n%{http_code}", "-H", "Host: " + host, *more, url]
    done = subprocess.run(line, capture_output=True, text=True)
    body, _, code = done.stdout.rpartition("\\n")
    print(json.dumps([done.returncode, code, body]))
"""


def all_of(lab: CheckContext, pod: str, requests: list[tuple[str, str, list[str]]]) -> list[str]:
    """Requests from inside the Pod, all with one exec."""
    words = ["exec", "-i", pod, "--", "python3", "-c", ALL_OF]
    said = lab.kubectl(*words, input=json.dumps(requests), timeout=30 + 6 * len(requests)).stdout.splitlines()
    return [
        f"curl's error {code}" if code else body.split("-")[0].strip() if status == "200" else status
        for code, status, body in map(json.loads, said)
    ]


def wrong(right: dict[str, str], seen: dict[str, str]) -> str:
    return "; ".join(f"{what} leads to {seen[what]}" for what in right if seen[what] != right[what])


def share(points: float, right: dict[str, str], seen: dict[str, str]) -> float:
    return round(points * sum(seen[what] == right[what] for what in right) / len(right), 2)


# the steps


@check("wish", points=6)
def _(lab: CheckContext) -> None:
    said = lab.answered({"code": str, "addresses": [str]})
    found = lab.find("ingress", "wish")
    lab.require(found, expected="the Ingress wish", seen="it is gone", look="lab.reset()")
    listed = (found or {}).get("status", {}).get("loadBalancer", {}).get("ingress") or []
    right = {
        "code": asked(lab, f"wish-{lab.params['number']}.example"),
        "addresses": [each.get("ip") or each.get("hostname") for each in listed],
    }
    lab.compare(right, said, look="kubectl get ingress wish -o yaml; ask(f'wish-{NUMBER}.example')")


@check("cafe", points=12)
def _(lab: CheckContext) -> None:
    host = f"cafe-{lab.params['number']}.example"
    ingress, secret = lab.find("ingress", "cafe"), lab.find("secret", "cafe")
    lab.require(ingress, expected="an Ingress named cafe", seen="there is none", look="kubectl get ingresses")
    lab.require(secret, expected="a Secret named cafe", seen="there is none", look="kubectl get secrets")
    try:
        crt = base64.b64decode((secret or {})["data"]["tls.crt"]).decode()
    except (KeyError, ValueError):
        lab.fail(expected="tls.crt and tls.key in the Secret", seen="they are not", look="kubectl get secret cafe -o yaml")
    right = {"/tea": "tea", "/tea/green": "tea", "/coffee": "coffee", "/coffee/": "coffee", "/teapot": "404", "/": "404"}

    def seen() -> dict[str, str]:
        """From both Envoys; where they differ, both."""
        said = {path: [asked_tls(lab, host, path, crt, at=at) for at in envoys(lab)] for path in right}
        return {path: " and ".join(sorted(set(answers))) for path, answers in said.items()}

    lab.eventually(lambda: seen() == right, timeout=15)
    now = seen()
    lab.require(
        now == right,
        expected="over https, with the Secret's certificate: /tea and what is under it to tea, /coffee to coffee, all else 404",
        seen=wrong(right, now),
        look="kubectl describe ingress cafe; kubectl -n projectcontour logs deployment/contour",
        earned=share(8, right, now) if any(now[path] == right[path] for path in ("/tea", "/coffee")) else 0,
    )
    lab.sight("cafe", ingress["metadata"]["uid"] if ingress else "")


@check("routes", points=10)
def _(lab: CheckContext) -> None:
    said = lab.answered({str: str})
    host = shop(lab)
    right = {path: asked(lab, host, path) for path in PATHS} | {"a": asked(lab, f"a.{host}"), "a.b": asked(lab, f"a.b.{host}")}
    lab.require(right["/tea"] == "tea", expected="the Ingress shop as it was", seen="it is changed or gone", look="lab.reset()")
    # A fair guess is right in a third of the cases, so the points begin where knowing begins.
    good = sum(said.get(what) == right[what] for what in right)
    missed = [what for what in right if said.get(what) != right[what]]
    lab.require(
        not missed,
        expected="the Service or the code for each request",
        seen=f"{len(missed)} of {len(right)} are different",
        look="Exact or Prefix? Whole parts between slashes; the longest wins; a star is one label",
        earned=round(max(0, 10 * (2 * good / len(right) - 1)), 2),
    )


@check("gateway", points=12)
def _(lab: CheckContext) -> None:
    route = lab.find("httproute", "taste")
    lab.require(route, expected="an HTTPRoute named taste", seen="there is none", look="kubectl get httproutes")
    host = f"taste-{lab.params['number']}.example"

    def said() -> list[dict[str, str]]:
        """What each Gateway says about the route."""
        parents = (lab.find("httproute", "taste") or {}).get("status", {}).get("parents", [])
        return [each for parent in parents for each in parent["conditions"]]

    conditions = lab.eventually(said, timeout=15)
    bad = [f"{each['type']}: {each['message']}" for each in conditions if each["status"] != "True"]
    lab.require(
        conditions and not bad,
        expected="an HTTPRoute that the Gateway has accepted",
        seen="; ".join(bad) or "no Gateway says anything about it",
        look="kubectl get httproute taste -o yaml: status.parents; is parentRefs right?",
    )
    lab.eventually(lambda: asked(lab, host) in ("tea", "newtea"), timeout=15)
    forced = Counter(asked(lab, host, header="x-taste: new") for _ in range(20))
    loop = f"for i in $(seq 240); do curl -s --max-time 5 -H 'Host: {host}' http://{envoys(lab)[0]}/any; done"
    counts = Counter(line.split("-")[0] for line in lab.node("cp").run(loop, timeout=200).stdout.splitlines() if line)
    # 240 requests, a quarter of them: 60 on average, standard deviation 6.7. Five of these leave honest work alone.
    fair = sum(counts.values()) == 240 and set(counts) == {"tea", "newtea"} and 27 <= counts["newtea"] <= 93
    lab.require(
        fair,
        expected="about 180 of 240 requests to tea and 60 to newtea",
        seen=dict(counts) or "no answer",
        look="backendRefs and their weights",
        earned=4 if forced == {"newtea": 20} else 0,
    )
    lab.require(
        forced == {"newtea": 20},
        expected="with the header x-taste: new, all to newtea",
        seen=dict(forced),
        look="a rule of its own, with matches",
        earned=7,
    )


SERVERS: dict[str, Any] = {
    "plain": ["10.0.0.1:8080", "10.0.0.2:8080"],
    "by number": ["10.0.1.1:9000"],
    "by name": ["10.0.1.1:8080"],
    "two slices": ["10.0.2.1:8080", "10.0.2.2:9090"],
    "some leave": ["10.0.3.1:8080", "10.0.3.3:8080"],
    "nobody": [],
    "the Pods' port": "Problem",
    "no such Service": "Problem",
}


@check("servers", points=10)
def _(lab: CheckContext) -> None:
    said = lab.answered({str: object})
    right = {case: sorted(value) if isinstance(value, list) else value for case, value in SERVERS.items()}
    seen = {case: sorted(map(str, value)) if isinstance(value := said.get(case), list) else value for case in SERVERS}
    missed = {case: seen[case] for case in right if seen[case] != right[case]}
    lab.require(
        not missed,
        expected=", ".join(f"{case}: {right[case]}" for case in missed),
        seen=", ".join(f"{case}: {value}" for case, value in missed.items()),
        look="The made-up Services and slices in the cell above",
        # An empty list and an error are right for whoever does nothing at all in every case, too.
        earned=round(10 * (4 - len(missed)) / 4, 2) if len(missed) < 4 else 0,
    )


LOCATIONS = {
    "/tea": "tea",
    "/tea/": "tea",
    "/tea/black": "tea",
    "/teapot": "404",
    "/tea/green": "exact",
    "/tea/green/": "green",
    "/tea/green/leaf": "green",
    "/tea/greenish": "tea",
    "/cake": "cake",
    "/cake/": "404",
    "/cakes": "404",
    "/pie/": "pie",
    "/pie": "404",
    "/pie/1": "404",
    "/": "404",
    "/water": "404",
}


@check("locations", points=12)
def _(lab: CheckContext) -> None:
    text = lab.answered(str)
    names = sorted({name for name in LOCATIONS.values() if name != "404"})
    behind = "\n".join(
        f"upstream {name} {{ server unix:/tmp/{name}; }} server {{ listen unix:/tmp/{name}; return 200 {name}; }}" for name in names
    )
    frame = f"user www-data; events {{}} http {{ access_log off; {behind}\nserver {{ listen 8000;\n{text}\n}} }}"
    with pod_of_its_own(lab) as pod:
        written(lab, pod, {"nginx.conf": frame}, "/tmp/asked")
        serves(lab, pod, "/tmp/asked", "print(locations(PATHS))")
        seen = dict(zip(LOCATIONS, all_of(lab, pod, [(f"http://127.0.0.1:8000{path}", "x", []) for path in LOCATIONS]), strict=True))
    # A server that says 404 to everything is right about half of them.
    good = sum(seen[path] == right for path, right in LOCATIONS.items() if right != "404")
    served = sum(right != "404" for right in LOCATIONS.values())
    strict = [path for path, right in LOCATIONS.items() if right == "404" and seen[path] != "404"]
    lab.require(
        seen == LOCATIONS,
        expected="each path where the Ingress says",
        seen=wrong(LOCATIONS, seen),
        look="print(locations(PATHS)); a redirect (301) means that nothing takes the path without its slash",
        earned=round(max(0, 12 * good / served - 2 * len(strict)), 2),
    )


@check("sites", points=10)
def _(lab: CheckContext) -> None:
    said = lab.answered({"files": {str: str}, "no default class": str})
    crt = cafe_of(said["files"])
    host = f"cafe-{lab.params['number']}.example"
    right = {
        f"{host}/tea": "tea",
        f"{host}/coffee": "coffee",
        f"{host}/more": "cake",
        f"{host}/else": "newtea",
        f"https://{host}/tea": "tea",
        "one.star.example/": "tea",
        "two.star.example/": "cake",
        "a.b.star.example/": "newtea",
        "xstar.example/": "newtea",
        "plain.example/": "coffee",
        "foreign.example/": "newtea",
        "open.example/": "newtea",
        "https://open.example/": "curl's error 35",
        "nowhere.example/any": "tea",
        "nowhere.example/": "newtea",
    }
    requests = []
    for what in right:
        name, _, path = what.removeprefix("https://").partition("/")
        if what.startswith("https://"):
            more = ["--cacert", "/tmp/asked/cafe.crt", "--resolve", f"{name}:443:127.0.0.1"]
            requests.append((what, name, more))
        else:
            requests.append((f"http://127.0.0.1/{path}", name, []))
    with pod_of_its_own(lab) as pod:
        written(lab, pod, {**said["files"], "cafe.crt": crt}, "/tmp/asked")
        lab.run_in(pod, "mkdir -p /run/ingress")
        serves(lab, pod, "/tmp/asked", 'print(sites()["files"]["nginx.conf"])')
        seen = dict(zip(right, all_of(lab, pod, requests), strict=True))
    served = {what: to for what, to in right.items() if to != "newtea"}
    lab.require(
        seen == right,
        expected="each host where its Ingress says; what has none, to the default backend, newtea",
        seen=wrong(right, seen),
        look='print(sites()["files"]["nginx.conf"])',
        earned=max(0.0, share(10, served, seen) - 2 * sum(seen[what] != "newtea" for what in right if what not in served)),
    )
    lab.require(
        "plain.example" not in said["no default class"],
        expected="an Ingress without a class is left alone where our class is not the default one",
        seen="it is served",
        look="ours(): the annotation",
        earned=8,
    )


def cafe_of(files: dict[str, str]) -> str:
    """The certificate that was handed in, without its key."""
    texts = [text.partition("-----END CERTIFICATE-----")[0] for name, text in files.items() if "BEGIN CERTIFICATE" in text]
    return f"{texts[0]}-----END CERTIFICATE-----\n" if texts else ""


INNER = r"""
import json, os, sys

os.environ.update(CONTROLLER="x", API_SERVER="http://127.0.0.1:1", PORTS="8000 8443 8246", PLACE="/tmp/place")
sys.path.insert(0, "/tmp/asked")
import controller

nginx = controller.Nginx()
for line in sys.stdin:
    try:
        nginx.apply(json.loads(line))
        said = ""
    except BaseException as problem:
        said = f"{type(problem).__name__}: {problem}"
    print("SAID " + json.dumps(said), flush=True)
"""

# What the learner wrote runs in a process of its own. Here it is only told what to apply; what comes of it is asked of NGINX.
TRIED = r'''
import collections, json, os, pathlib, subprocess, sys, threading, time, urllib.request

# NGINX lives on when this ends. It must not hold our own output open, for then kubectl would wait for more of it.
log = open("/tmp/asked/log", "w+")
theirs = subprocess.Popen([sys.executable, "/tmp/asked/inner.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)


def files(number, extra=""):
    text = f"""user www-data; worker_processes 2; pid /tmp/nginx.pid; events {{}}
    http {{ access_log off; server {{ listen 8000; location / {{ return 200 "{number}"; }} }}
    server {{ listen 127.0.0.1:8246; location = /version {{ return 200 "v{number}"; }} }} }}{extra}"""
    return {"nginx.conf": text, "version": f"v{number}", "certificates/some.pem": "nothing\n"}


def applied(number, extra=""):
    """What went wrong, if anything did."""
    try:
        print(json.dumps(files(number, extra)), file=theirs.stdin, flush=True)
    except OSError:
        return "the program has ended"
    said = next((line[5:] for line in theirs.stdout if line.startswith("SAID ")), None)
    return json.loads(said) if said else "the program has ended: " + pathlib.Path(log.name).read_text()[-300:].strip()


def get():
    with urllib.request.urlopen("http://127.0.0.1:8000/", timeout=5) as answer:
        return answer.read().decode()


def soon(number):
    for _ in range(50):
        try:
            if all(get() == str(number) for _ in range(5)):
                return True
        except OSError:
            pass
        time.sleep(0.05)
    return False


def master():
    return pathlib.Path("/tmp/nginx.pid").read_text().strip()


def ask():
    while not stop.is_set():
        try:
            seen["answered" if get().isdigit() else "odd"] += 1
        except Exception as problem:
            seen[f"{type(problem).__name__}: {problem}"] += 1


seen, stop = collections.Counter(), threading.Event()
found = {"problem": applied(0), "first": soon(0), "changes": []}
if found["first"]:
    pid = master()
    threads = [threading.Thread(target=ask) for _ in range(4)]
    [thread.start() for thread in threads]
    for number in range(1, 11):
        found["problem"] = found["problem"] or applied(number)
        found["changes"].append(soon(number))
    stop.set()
    [thread.join() for thread in threads]
    found["same"] = master() == pid
    found["bad"] = "refused" if applied(99, "}") else "it was taken without a word"
    found["after bad"] = soon(10)
    applied(11)
    found["after that"] = soon(11)
print("FOUND " + json.dumps({**found, "seen": seen}), flush=True)
os._exit(0)
'''


@check("nginx", points=10, timeout=240)
def _(lab: CheckContext) -> None:
    text = lab.answered(str)
    # What it imports from config.py is not asked for here.
    config = "World = ours = render = None\n"
    with pod_of_its_own(lab) as pod:
        written(lab, pod, {"controller.py": text, "config.py": config, "inner.py": INNER, "try.py": TRIED}, "/tmp/asked")
        said = lab.run_in(pod, ["timeout", "120", "python3", "/tmp/asked/try.py"], timeout=140)
    lines = [line.removeprefix("FOUND ") for line in said.stdout.splitlines() if line.startswith("FOUND ")]
    look = "lab.parts['controller.py']; Nginx.apply is called with files that NGINX takes, ten times, and once with some that it does not"
    lab.require(lines, expected="apply() comes back", seen=(said.stdout + said.stderr).strip()[-300:] or "it does not", look=look)
    found = json.loads(lines[-1])
    lab.require(not found["problem"], expected="apply() takes good files", seen=found["problem"], look=look)
    lab.require(found["first"], expected="NGINX runs with the first files", seen="it does not answer", look=look)
    lost = {what: count for what, count in found["seen"].items() if what != "answered"}
    wait = found["changes"].count(False)
    lab.require(not wait, expected="ten changes are taken up", seen=f"{wait} are not", look=look)
    lab.require(
        not lost and found["same"],
        expected="new connections are answered all the time, by the same master process",
        seen=f"{lost or 'none lost'}; {'the same process' if found['same'] else 'another process'}",
        look="NGINX is never stopped: HUP",
        earned=4,
    )
    lab.require(
        found["bad"] == "refused" and found["after bad"] and found["after that"],
        expected="files that NGINX does not take: an exception, and the old ones stay in force; then good ones are taken again",
        seen=f"{found['bad']}; afterwards the old ones {'are' if found['after bad'] else 'are not'} in force",
        look="self.test",
        earned=7,
    )


def own_pod(lab: CheckContext) -> dict[str, Any]:
    pods = [
        pod for pod in lab.pods("app=ingress") if all(each["ready"] for each in pod["status"].get("containerStatuses", [{"ready": False}]))
    ]
    lab.require(
        len(pods) == 1,
        expected="one Pod app=ingress, and ready",
        seen=f"{len(pods)}",
        look="kubectl get pods; kubectl logs deployment/ingress",
    )
    return pods[0]


def ingress(host: str, service: str, path: str = "/", class_name: str = "lab-10", name: str = MINE, **spec: Any) -> dict[str, Any]:
    backend = {"service": {"name": service, "port": {"number": 80}}}
    rules = [{"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}]
    meta = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name}}
    return {**meta, "spec": {"ingressClassName": class_name, "rules": rules, **spec}}


@check("controller", points=14, after=["servers", "locations", "sites", "nginx"], timeout=300)
def _(lab: CheckContext) -> None:
    version = lab.answered(str)
    pod = own_pod(lab)
    said = pod["metadata"].get("annotations", {}).get("version")
    lab.require(said == version, expected=f"a Pod with your version {version}", seen=said, look="deploy()")
    address = pod["status"]["podIP"]
    number = lab.params["number"]
    own = {path: asked(lab, f"own-{number}.example", path, at=address) for path in PATHS}
    right = {path: asked(lab, shop(lab), path) for path in PATHS}
    lab.require(
        own == right, expected="own-shop is served as Contour serves shop", seen=wrong(right, own), look="kubectl logs deployment/ingress"
    )
    hopeless = {path: asked(lab, f"hopeless-{number}.example", path, at=address) for path in ("/cake", "/gone")}
    lab.require(
        hopeless == {"/cake": "cake", "/gone": "503"},
        expected="of the Ingress hopeless, /cake is served, and /gone is 503",
        seen=hopeless,
        look="kubectl logs deployment/ingress",
        earned=3,
    )
    try:
        follows(lab, address)
        nobody_is_lost(lab, address)
    finally:
        lab.kubectl("delete", "ingress,secret", MINE, f"{MINE}-too", "--ignore-not-found")
        lab.kubectl("scale", "deployment/tea", "--replicas=2")


def follows(lab: CheckContext, address: str) -> None:
    host = f"check-{lab.params['number']}.example"
    crt, key = certificate(host)
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": MINE}}
    lab.apply({**secret, "stringData": {"tls.crt": crt, "tls.key": key}})
    lab.apply(ingress(host, "coffee", tls=[{"hosts": [host], "secretName": MINE}]))
    lab.apply(ingress(f"foreign-{host}", "coffee", class_name="nobody", name=f"{MINE}-too"))
    came = lab.eventually(lambda: asked_tls(lab, host, "/", crt, at=address) == "coffee", timeout=20)
    lab.require(
        came,
        expected="a new Ingress with TLS is served within 20 seconds",
        seen=asked_tls(lab, host, "/", crt, at=address),
        look="kubectl logs deployment/ingress",
        earned=5,
    )
    foreign = asked(lab, f"foreign-{host}", at=address)
    lab.require(foreign == "404", expected="an Ingress of another class is not served", seen=foreign, look="ours()", earned=5)

    def listed(name: str) -> list[str]:
        found = lab.get("ingress", name).get("status", {}).get("loadBalancer", {}).get("ingress") or []
        return [each.get("ip", "") for each in found]

    lab.eventually(lambda: listed(MINE) == [address], timeout=15)
    lab.require(
        listed(MINE) == [address] and listed(f"{MINE}-too") == [],
        expected=f"{address} in the status of our Ingresses, and nothing in that of others",
        seen=f"{listed(MINE)}, and {listed(f'{MINE}-too')}",
        look="publish_addresses()",
        earned=7,
    )
    lab.kubectl("scale", "deployment/tea", "--replicas=3")
    lab.kubectl("rollout", "status", "deployment/tea", "--timeout=60s", timeout=70)
    line = f"for i in $(seq 30); do curl -s --max-time 5 -H 'Host: own-{lab.params['number']}.example' http://{address}/tea; done"

    def pods() -> set[str]:
        return {said.split()[0] for said in lab.node("cp").run(line, timeout=60).stdout.splitlines() if said}

    all_three = lab.eventually(lambda: len(pods()) == 3, timeout=20)
    lab.require(all_three, expected="a new Pod of tea gets requests, too", seen=sorted(pods()), look="EndpointSlices", earned=9)


def nobody_is_lost(lab: CheckContext, address: str) -> None:
    """Without pause, on a new connection each time, while the configuration changes ten times."""
    once = f"curl -s -o /dev/null -w '%{{http_code}}' --max-time 5 -H 'Host: own-{lab.params['number']}.example' http://{address}/coffee"
    script = f"""
        n=0; t=0; end=$(( $(date +%s) + 60 )); rm -f /tmp/asked-stop
        while [ ! -e /tmp/asked-stop ] && [ $(date +%s) -lt $end ]; do
          t=$((t+1)); [ "$({once})" = 200 ] || n=$((n+1))
        done; echo $n $t; rm -f /tmp/asked-stop"""
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(lab.node("cp").run, script, timeout=120)
        try:
            for change in range(10):
                lab.apply(ingress(f"check-{lab.params['number']}.example", "coffee", path=f"/{change}"))
                time.sleep(0.5)
        finally:
            lab.node("cp").run("touch /tmp/asked-stop")
            lost, times = [*asking.result().stdout.split(), "?", "?"][:2]
    lab.require(lost == "0", expected="no request is lost while Ingresses change", seen=f"{lost} of {times}", look="Nginx.apply", earned=11)


def certificate(host: str) -> tuple[str, str]:
    key, name, now = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)]),
        datetime.now(UTC),
    )
    begin, end = now - timedelta(hours=1), now + timedelta(days=2)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), begin, end)
    signed = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False).sign(key, hashes.SHA256())
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return signed.public_bytes(serialization.Encoding.PEM).decode(), text.decode()


def settled(lab: CheckContext, host: str, at: str) -> str:
    """What is said once the Ingress is known, and twice in a row: the Ingress and the slices come by different watches."""
    lab.eventually(lambda: asked(lab, host, at=at) != "404", timeout=15)
    said = ""
    for _ in range(10):
        before, said = said, asked(lab, host, at=at)
        if said == before:
            break
        time.sleep(1.5)
    return said


@check("code", points=4, after=["controller"])
def _(lab: CheckContext) -> None:
    lab.injected("target-port-wrong")
    said = lab.answered({"contour": str, "own": str})
    port = lab.get("service", "cake")["spec"]["ports"][0]["targetPort"]
    address = own_pod(lab)["status"]["podIP"]
    hosts = {"contour": (shop(lab), ""), "own": (f"own-{lab.params['number']}.example", address)}
    mended = lab.eventually(lambda: all(asked(lab, host, "/coffee/iced", at=at) == "cake" for host, at in hosts.values()), timeout=20)
    lab.require(
        mended,
        expected="cake is served again, by both",
        seen=f"it is not; the Service's targetPort is {port}",
        look="kubectl get endpointslices",
    )
    # What each says about a port where nobody listens is asked with a Service of the check's own.
    meta = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": MINE}}
    lab.apply({**meta, "spec": {"selector": {"app": "cake"}, "ports": [{"port": 80, "targetPort": 8099}]}})
    host = f"check-{lab.params['number']}.example"
    try:
        behind = partial(lab.objects, "endpointslices", f"kubernetes.io/service-name={MINE}")
        lab.eventually(lambda: any(each.get("endpoints") for each in behind()), timeout=30)
        for name, class_name in (("contour", "contour"), ("own", "lab-10")):
            lab.apply(ingress(host, MINE, class_name=class_name, name=f"{MINE}-{name}"))
        right = {name: settled(lab, host, at) for name, (_, at) in hosts.items()}
    finally:
        lab.kubectl("delete", "ingress,service", MINE, f"{MINE}-contour", f"{MINE}-own", "--ignore-not-found")
    lab.compare(right, said, look="ask(SHOP, '/coffee/iced'), and ask(OWN, '/coffee/iced', at=mine()), while it is broken")
