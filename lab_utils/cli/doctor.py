"""`lab doctor`: what can run here, what is missing and how to mend it, what it will cost, and where things came from."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from lab_utils.paths import cache_dir, root_cache_dir, root_state_dir, state_dir


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--provenance", is_flag=True, help="Where each binary and image in the cache came from.")
def doctor(as_json: bool, provenance: bool) -> None:
    """What can run on this machine, and what is missing. Exit code 2 when nothing can."""
    from lab_utils.providers import PROVIDERS, in_order, provider

    if provenance:
        show_provenance(as_json)
        return
    found = [provider(name).usability() for name in PROVIDERS]
    best = next((each.name for each in in_order(found)), None)
    report = {"providers": [asdict(each) for each in found], "recommended": best, "needs": needs(best), "has": has()}
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        show(report)
    if best is None:
        sys.exit(2)


def needs(name: str | None) -> dict[str, Any]:
    """What a cluster of the default size (three nodes) takes, and what the caches still want before the first one."""
    from lab_utils.artifacts import space
    from lab_utils.providers import ClusterSpec, provider

    memory, disk = provider(name or "embedded").takes(ClusterSpec.workers)
    first = int(1000 * sum(space.wanted().values())) if name == "embedded" else 0
    return {"memory_mb": memory, "disk_mb": disk + first, "disk_once_mb": first}


def has() -> dict[str, Any]:
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (ValueError, OSError):  # not every system tells
        memory = 0
    places = (cache_dir(), root_cache_dir(), state_dir(), root_state_dir())
    return {"memory_mb": memory, "disk_mb": min(map(free_mb, places)), "processors": os.cpu_count()}


def free_mb(place: Path) -> int:
    """What is free where this folder lies or would be made. It may not exist yet, nor may the home that it belongs to."""
    for folder in (place, *place.parents):
        try:
            return shutil.disk_usage(folder).free // 2**20
        except OSError:
            continue
    return 0


def show(report: dict[str, Any]) -> None:
    for each in report["providers"]:
        click.echo(f" {'✓' if each['usable'] else '✗'} {each['name']}: {each['why']}")
        if each["mend"]:
            click.echo(f"     mend: {each['mend']}")
    need, have = report["needs"], report["has"]
    memory = f"{need['memory_mb']} MB of memory (of {have['memory_mb']})"
    disk = f"{need['disk_mb']} MB of disk ({have['disk_mb']} free)"
    first = f"; {need['disk_once_mb']} MB of that are for the first one" if need["disk_once_mb"] else ""
    click.echo(f"   a cluster of three nodes uses up to {memory} and {disk}{first}")
    best = report["recommended"]
    click.echo(
        f"   start with: lab up{'' if best == 'embedded' else f' --provider {best}'}"
        if best
        else "   nothing can run here yet; the lines above say what to do"
    )


def show_provenance(as_json: bool) -> None:
    from lab_utils import artifacts
    from lab_utils.cli.console import table

    items = [asdict(item) for item in artifacts.provenance()]
    if as_json:
        click.echo(json.dumps(items, indent=2, default=str))
    elif not items:
        click.echo("Nothing is in the cache yet: `lab up` fills it.")
    else:
        click.echo(
            table(
                ["COMPONENT", "VERSION", "FROM", "SHA-256"],
                [[i["component"], i["version"], i["source"], (i["sha256"] or "")[:16]] for i in items],
            )
        )
