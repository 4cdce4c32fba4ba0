"""`lab up`, `status`, `down`, `reset`, `load`: clusters come and go."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from lab_utils.cli.console import Console, table
from lab_utils.cluster import DEFAULT_NAME, ClusterRecord, cluster_dir, known_clusters, load_record, readable_records
from lab_utils.errors import BadInput, HostLacks, LabError, NoSuchCluster
from lab_utils.grading.lock import leave_alone

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")


def checked_name(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not NAME.fullmatch(value):
        raise BadInput(f"{value!r} cannot name a cluster", "Use up to 20 letters a-z, digits and inner hyphens, such as lab or team-2")
    return value


name_option = click.option(
    "--name", default=None, callback=checked_name, help=f"Which cluster; several may run side by side. [default: {DEFAULT_NAME}]"
)


@click.command()
@name_option
@click.option(
    "--provider", "provider_name", default=None, help="embedded, vagrant, kind or kubeconfig. [default: the best that can run here]"
)
@click.option("--workers", type=click.IntRange(0, 5), default=None, help="Nodes beside the control plane. [default: 2; those that it has]")
@click.option(
    "--proxy-mode",
    type=click.Choice(["iptables", "nftables"]),
    default=None,
    help="How kube-proxy writes its rules. [default: iptables; as they are]",
)
@click.option("--metrics-server", is_flag=True, help="Install metrics-server too.")
@click.option(
    "--network-policy",
    type=click.Choice(["kube-router", "kube-network-policies", "own"]),
    default=None,
    help="Install an engine that keeps NetworkPolicies; own is lab 11's solution. [default: none, as flannel]",
)
@click.option("--bare", is_flag=True, help="Nodes with every package on them and nothing of Kubernetes running.")
@click.option("--guarded", is_flag=True, help="embedded: a user namespace around each node, for nodes on which a stranger will be root.")
@click.option("--for", "lab", metavar="LAB", help="With what this lab needs: add-ons and images. Adds them to a running cluster, too.")
@click.option("--port", "ports", multiple=True, metavar="HOST:NODE", help="kind: make a port of the nodes one of this host, too.")
@click.option("--kubeconfig", type=click.Path(), default="", help="kubeconfig: the file. [default: $KUBECONFIG, ~/.kube/config]")
@click.option("--context", default="", help="kubeconfig: which of its contexts. [default: its current one]")
@click.option(
    "--node-access", type=click.Choice(["none", "debug"]), default=None, help="kubeconfig: debug allows a privileged Pod per node."
)
def up(
    name: str | None,
    provider_name: str | None,
    workers: int | None,
    proxy_mode: str | None,
    metrics_server: bool,
    network_policy: str | None,
    bare: bool,
    guarded: bool,
    lab: str | None,
    ports: tuple[str, ...],
    kubeconfig: str,
    context: str,
    node_access: str | None,
) -> None:
    """Start a cluster (or the stopped nodes of one) and wait until it works."""
    from lab_utils.providers import ClusterSpec, choose, provider

    name = name or DEFAULT_NAME
    leave_alone(name)
    known = load_record(name) if name in known_clusters() else None
    existing = known.provider if known else None
    if existing and provider_name not in (None, existing):
        raise BadInput(
            f"cluster {name!r} exists on provider {existing!r}", f"Remove it first (`lab down --name {name}`), or give yours another --name"
        )
    console = Console()
    start = time.monotonic()
    chosen = provider(provider_name or existing or choose())
    own: dict[str, dict[str, Any]] = {
        "kind": {"--port": ports},
        "embedded": {"--guarded": guarded},
        "kubeconfig": {"--kubeconfig": kubeconfig, "--context": context, "--node-access": node_access},
    }
    for only, options in own.items():
        if chosen.name != only and (given := [option for option, value in options.items() if value]):
            raise BadInput(f"{given[0]} is for the provider {only}, and this is {chosen.name}", f"Add --provider {only}, or leave it out")
    said = tuple(option for option, value in {"--workers": workers, "--proxy-mode": proxy_mode}.items() if value is not None)
    if workers is None and known and known.nodes:
        workers = len(known.nodes) - 1
    if workers is None:  # vagrant's settings file has a number of its own
        workers = getattr(chosen, "usual_workers", lambda: ClusterSpec.workers)()
    spec = ClusterSpec(name, workers, proxy_mode or ClusterSpec.proxy_mode, metrics_server, bare, guarded, said=said)
    spec = replace(
        spec, network_policy=network_policy or "", ports=ports, kubeconfig=kubeconfig, context=context, node_access=node_access or ""
    )
    if lab:
        from lab_utils.labs.catalog import find_lab

        needs = find_lab(lab).spec.needs
        spec = replace(spec, metrics_server=metrics_server or needs.metrics, storage=needs.storage, images=needs.images)
        spec = replace(spec, bare=bare or needs.bare, ingress=needs.ingress)
    addons = {"--metrics-server": spec.metrics_server, "--network-policy": spec.network_policy, "--for": spec.storage or spec.ingress}
    if spec.bare and (given := [option for option, value in addons.items() if value]):
        mend = "On bare nodes there is nothing yet that could use it: choose one"
        raise BadInput(f"{'--bare' if bare else f'--for {lab}'} and {given[-1]} were both given", mend)
    cluster = chosen.up(spec, console)
    nodes = ", ".join(node.name for node in cluster.nodes)
    click.echo(f"Cluster {name} is up: {nodes} ({time.monotonic() - start:.1f} s). Look inside: lab ssh{_option(name)} cp", err=True)


@click.command()
@click.option("--prune", is_flag=True, help="Remove node roots and image stores of older versions that no cluster stands on.")
def prepare(prune: bool) -> None:
    """Download or build everything that a cluster needs, and start none. `lab up` does this by itself; afterwards it needs no network."""
    from lab_utils.embedded.privileged import perform

    start = time.monotonic()
    perform("prepare", {"prune": prune}, Console())
    click.echo(f"Everything for a cluster is in the cache ({time.monotonic() - start:.1f} s).", err=True)


@click.command()
@name_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(name: str | None, as_json: bool) -> None:
    """Which clusters there are, and which of their nodes run. Exit code 1 when one of them does not, or cannot be looked at."""
    records, skipped = ([load_record(name)], []) if name else readable_records()
    found = [_look(record) for record in records]
    for problem in skipped:
        click.echo(f"lab: {problem}", err=True)
    if as_json:
        click.echo(json.dumps({"clusters": found}, indent=2))
    elif not found and not skipped:
        click.echo("There is no cluster here. Start one with: lab up")
    elif found:
        rows = [
            [each["name"], node["name"], node["role"], node["ip"], _word(node), node["detail"]] for each in found for node in each["nodes"]
        ]
        click.echo(table(["CLUSTER", "NODE", "ROLE", "IP", "STATUS", ""], rows))
        for each in found:
            if each["state"] != "up":
                click.echo(f"{each['name']}: half made; `lab down --name {each['name']}` removes it")
    if skipped or not all(each["healthy"] for each in found):
        sys.exit(1)


def _look(record: ClusterRecord) -> dict[str, Any]:
    """One cluster for `status`. What its provider cannot tell is None, with the reason: that must not hide the other clusters."""
    from lab_utils.providers import provider

    try:
        nodes = [asdict(node) for node in provider(record.provider).status(record)]
    except (LabError, LookupError, TypeError, ValueError) as error:
        # Beside what a provider says itself: a record of another version may lack what this one looks up in it.
        why = str(error) if isinstance(error, LabError) else f"its record does not fit this version ({type(error).__name__}: {error})"
        unknown = {"running": None, "ready": None, "detail": why}
        nodes = [{"name": node.name, "ip": node.ip, "role": node.role, **unknown} for node in record.nodes]
    bare = bool(record.options.get("bare"))
    return {
        "name": record.name,
        "provider": record.provider,
        "state": record.state,
        "kubernetes": record.kubernetes,
        "healthy": record.state == "up" and all(node["running"] and (node["ready"] or bare) for node in nodes),
        "kubeconfig": record.kubeconfig,
        "nodes": nodes,
    }


@click.command()
@name_option
@click.option("--all", "every", is_flag=True, help="Every cluster of this user.")
def down(name: str | None, every: bool) -> None:
    """Remove a cluster and everything that was made for it."""
    if name and every:
        raise BadInput("--name and --all were both given", "Use one of them")
    console = Console()
    if not every:
        _remove(name or DEFAULT_NAME, console)
        return
    problems: dict[str, LabError | OSError] = {}
    for each in _all():
        try:
            _remove(each, console)
        except (LabError, OSError) as error:  # the others can go nonetheless
            problems[each] = error
    for each, problem in problems.items():
        click.echo(f"lab: cluster {each} is not removed: {problem}", err=True)
    if problems:
        sys.exit(2)


def _remove(name: str, console: Console) -> None:
    from lab_utils.providers import PROVIDERS, provider

    leave_alone(name)
    if found := _provider_of(name):
        provider(found).down(name, console)
        return
    # No record, or none that can be read: `up` may have been killed between two records. Each provider knows what is its own, and says
    # what keeps it from removing that. Embedded comes last: it removes the folder by which the others know.
    embedded, *others = PROVIDERS
    for other in others:
        provider(other).down(name, console)
    if (can := provider(embedded).usability()).usable:
        provider(embedded).down(name, console)
    elif cluster_dir(name).exists():
        raise HostLacks(
            f"{cluster_dir(name)} tells nothing of its cluster, and whether nodes are there cannot be seen: {can.why}", can.mend
        )


@click.command()
@name_option
@click.argument("lab", required=False)
def reset(name: str | None, lab: str | None) -> None:
    """Bring the cluster back to what it was right after `up`, or, with LAB (a number or name), only that lab's own objects."""
    if lab:
        from lab_utils.lab import reset_lab

        click.echo(f"Lab {reset_lab(lab, name)} is reset: nothing of it is left on the cluster", err=True)
        return
    from lab_utils.providers import provider

    start = time.monotonic()
    record = load_record(name or DEFAULT_NAME)
    leave_alone(record.name)
    provider(record.provider).reset(record.name, Console())
    click.echo(f"Cluster {record.name} is pristine again ({time.monotonic() - start:.1f} s)", err=True)


@click.command()
@name_option
@click.argument("archive", type=click.Path(path_type=Path))
def load(name: str | None, archive: Path) -> None:
    """Put the images of an archive (`docker save`, or an OCI one) on every node."""
    from lab_utils.providers import provider

    if not archive.is_file():
        raise BadInput(f"there is no file {archive}", "Give an archive as `docker save -o image.tar NAME` writes it")
    record = load_record(name or DEFAULT_NAME)
    for image in provider(record.provider).load(record, archive, Console()):
        click.echo(image)


def _all() -> list[str]:
    """Every cluster of this user, also one without a record of its own that a provider still knows."""
    from lab_utils.providers import PROVIDERS, provider

    return sorted({*known_clusters(), *(name for each in PROVIDERS for name in getattr(provider(each), "forgotten", list)())})


def _provider_of(name: str) -> str | None:
    """A record that cannot be read must not keep `down` from working."""
    try:
        return load_record(name).provider
    except (BadInput, NoSuchCluster):
        return None


def _option(name: str) -> str:
    return "" if name == DEFAULT_NAME else f" --name {name}"


def _word(node: dict[str, Any]) -> str:
    if node["running"] is None:
        return "Unknown"
    return "Stopped" if not node["running"] else ("Ready" if node["ready"] else "NotReady")
