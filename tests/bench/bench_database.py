"""The database of chapter 5: how long nobody can write when its primary is killed or deleted, beside a program that needs no data.

Both are StatefulSets with one client each, which asks again and again. What the second one costs is Kubernetes' share: to notice, to
start a container or to make a Pod, and to tell its new address. The rest is the database's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise

from lab_utils.artifacts.versions import pinned
from lab_utils.cluster import Cluster
from lab_utils.namespaces import pids_of
from lab_utils.paths import repo_dir
from lab_utils.progress import Silent
from lab_utils.providers import ClusterSpec, provider
from tests.bench.report import Row, of_pairs

NAME, SPACE, ROUNDS = "bench-database", "bench-database", 5
MARIADB = "docker.io/library/mariadb:10.11"
PLAIN = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: None, selector: {app: web}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: web
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: web
        image: AGNHOST
        args: [netexec]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
"""
CLIENT = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: {name}
    image: {image}
    env: [{{name: MYSQL_PWD, value: not-so-secret}}]
    command:
    - sh
    - -c
    - while true; do n=$((n + 1)); {ask} > /dev/null 2>&1 && date +%s.%3N >> /tmp/answered; sleep 0.05; done
"""
WRITE = 'mariadb -h db-0.db -u app --connect-timeout=2 shop -e "INSERT INTO orders (id) VALUES ($n)"'


def rows() -> list[Row]:
    chosen = provider("embedded")
    try:
        cluster = chosen.up(ClusterSpec(NAME, workers=2, storage=True, images=(MARIADB,)), Silent())
        start(cluster)
        killed, deleted = [], []
        for _ in range(ROUNDS):  # a new Pod before each kill: a container that dies again soon has to wait for its restart
            killed.append((pause(cluster, kill, "db-0", "writer"), pause(cluster, kill, "web-0", "caller")))
            deleted.append((pause(cluster, delete, "db-0", "writer"), pause(cluster, delete, "web-0", "caller")))
        cluster.close()
    finally:
        chosen.down(NAME, Silent())
    return [
        of_pairs(f"{what}: no row acknowledged / a web server does not answer", pairs)
        for what, pairs in (("its process is killed (-9)", killed), ("its Pod is deleted", deleted))
    ]


def start(cluster: Cluster) -> None:
    page = (repo_dir() / "book/05-statefulset.md").read_text()
    scripts, database = re.findall(r'^(?:SCRIPTS|DATABASE) = r?"""(.*?)"""', page, re.M | re.S)
    cluster.kubectl("create", "namespace", SPACE)
    agnhost = pinned().image("agnhost").name
    cluster.apply("---".join([scripts, database, PLAIN.replace("AGNHOST", agnhost)]), SPACE)
    for pod in ("db-0", "db-1", "web-0"):
        cluster.wait(partial(exists, cluster, pod))
        cluster.wait(f"pod/{pod} condition=Ready -n {SPACE}", timeout=300)
    create = "CREATE TABLE orders (n INT AUTO_INCREMENT PRIMARY KEY, id INT)"
    cluster.kubectl("-n", SPACE, "exec", "db-0", "-c", "mariadb", "--", "mariadb", "-u", "root", "shop", "-e", create)
    cluster.apply(CLIENT.format(name="writer", image=MARIADB, ask=WRITE), SPACE)
    cluster.apply(CLIENT.format(name="caller", image=agnhost, ask="curl -sf -m 2 web-0.web:8080/hostname"), SPACE)
    for client in ("writer", "caller"):
        cluster.wait(f"pod/{client} condition=Ready -n {SPACE}")
        cluster.wait(partial(many, cluster, client))


def kill(cluster: Cluster, pod: str) -> None:
    node = cluster.node(cluster.get("pod", pod, "-n", SPACE)["spec"]["nodeName"])
    (main,) = (pid for name, pid in pids_of(node, SPACE, pod).items() if name in ("mariadb", "web"))
    node.run(["kill", "-9", str(main)], check=True)


def delete(cluster: Cluster, pod: str) -> None:
    cluster.kubectl("-n", SPACE, "delete", "pod", pod, "--timeout=60s", timeout=90)


def pause(cluster: Cluster, strike: Callable[[Cluster, str], None], pod: str, client: str) -> float:
    """The longest time without an answer, from a blow until two seconds after a Pod of this name answers again."""
    begin = answered(cluster, client)[-1]
    strike(cluster, pod)
    struck = answered(cluster, client)[-1]
    cluster.wait(lambda: answered(cluster, client)[-1] > struck + 2, timeout=180)
    cluster.wait(f"pod/{pod} condition=Ready -n {SPACE}", timeout=180)
    time.sleep(2)
    return max(later - earlier for earlier, later in pairwise(at for at in answered(cluster, client) if at >= begin))


def exists(cluster: Cluster, pod: str) -> bool:
    return cluster.kubectl("-n", SPACE, "get", "pod", pod, check=False).ok


def many(cluster: Cluster, client: str) -> bool:
    return len(answered(cluster, client)) > 20


def answered(cluster: Cluster, client: str) -> list[float]:
    return [float(word) for word in cluster.kubectl("-n", SPACE, "exec", client, "--", "cat", "/tmp/answered", check=False).stdout.split()]
