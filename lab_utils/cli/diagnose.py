"""`lab diagnose`."""

from __future__ import annotations

import sys

import click

from lab_utils.cli.clusters import name_option


@click.command()
@name_option
def diagnose(name: str | None) -> None:
    """Find the first broken layer: node, runtime, kubelet, API server, CNI, route, kube-proxy, DNS."""
    from lab_utils.cluster import connect
    from lab_utils.diagnose import walk

    for report in walk(connect(name)):
        click.echo(f" {'✓' if report.ok else '✗'} {report.layer}: {report.asks}")
        for found in report.findings:
            click.echo(f"     {found.node}: {found.seen}\n       look: {found.look}")
        if not report.ok:
            click.echo(f"The first broken layer is: {report.layer}")
            sys.exit(1)
    click.echo("Every layer works.")
