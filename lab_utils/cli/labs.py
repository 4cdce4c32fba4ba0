"""`lab start`, `check`, `hint`, `progress`: labs at a terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from lab_utils.labs.catalog import all_labs, find_lab
from lab_utils.labs.render import Report, Table, number, progress_table
from lab_utils.labs.store import Store

CLUSTER = click.option("--cluster", metavar="NAME", help="Which cluster, when there are several.")


@click.command()
@click.argument("name", metavar="[LAB]", required=False)
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8888, show_default=True, help="Where JupyterLab listens, on this machine only."
)
@click.option("--no-browser", is_flag=True, help="Print the address and open nothing.")
@click.option("--dry-run", is_flag=True, help="Write the start page, print the command, and start nothing.")
def start(name: str | None, port: int, no_browser: bool, dry_run: bool) -> None:
    """Open JupyterLab on the labs: on a start page, or on one LAB.

    JupyterLab runs until you press Ctrl-C. LAB is a number or a name, like 08 or 08-services.
    """
    from lab_utils.labs.catalog import root
    from lab_utils.labs.startpage import PAGE, write_settings, write_start_page

    files = find_lab(name) if name else None
    folder = root() / "labs"
    write_start_page(folder)
    path = f"{files.name}/lab.ipynb" if files else PAGE
    argv = [sys.executable, "-m", "jupyterlab", str(folder), f"--port={port}", "--ip=127.0.0.1"]
    argv += [f"--LabApp.default_url=/lab/tree/{path}", f"--LabApp.app_settings_dir={write_settings()}"]
    argv += ["--no-browser"] if no_browser else []
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        argv.append("--allow-root")  # a learner in a container or a throw-away machine is root; Jupyter listens on loopback only
    if dry_run:
        click.echo(" ".join(argv))
        return
    click.echo(f"JupyterLab opens on {folder}; Ctrl-C here ends it.")
    sys.stdout.flush()
    # In its terminals `lab` is a command.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # Notebooks import this package by the interpreter's own path; the cluster's kubectl joins PATH inside Lab().
    os.execv(argv[0], argv)


@click.command()
@click.argument("name", metavar="LAB")
@click.argument("step", required=False)
@CLUSTER
def check(name: str, step: str | None, cluster: str | None) -> int:
    """Check a STEP of a LAB, or every step that has not passed yet. Ends with 1 when one of them failed."""
    from lab_utils.lab import Lab

    report = Lab(name, cluster).check(step)
    _say(report)
    return 0 if all(result.passed or not result.counts for result in report.results) else 1


@click.command()
@click.argument("name", metavar="LAB")
@click.argument("step", required=False)
def hint(name: str, step: str | None) -> None:
    """Hints for a STEP, or for the first that has not passed: one more after each failed check. Needs no cluster."""
    from lab_utils.labs.hints import hints_for

    files = find_lab(name)
    click.echo(hints_for(files.spec, Store.of_learner(files.name), step).text())


@click.command()
@click.argument("name", metavar="[LAB]", required=False)
def progress(name: str | None) -> None:
    """How far you are: in one LAB step by step, or in all of them. Needs no cluster."""
    if name:
        files = find_lab(name)
        store = Store.of_learner(files.name)
        click.echo(progress_table(files.spec, store.progress()).text())
        _notes(store)
        return
    rows = []
    for files in all_labs():
        store = Store.of_learner(files.name)
        done = store.results()
        earned = sum(result.earned for result in done.values())
        passed = sum(result.passed for result in done.values())
        rows.append(
            [
                files.name,
                f"{files.spec.minutes} min",
                f"{passed}/{len(files.spec.steps)} steps",
                f"{number(earned)}/{files.spec.points} points",
            ]
        )
        _notes(store)
    click.echo(
        Table(["lab", "time", "steps", "score"], rows).text()
        if rows
        else "There are no labs here yet; `lab build --all` makes them from solutions/."
    )


def _say(report: Report) -> None:
    click.echo(report.text())


def _notes(store: Store) -> None:
    for note in store.notes:
        click.echo(f"lab: {note}", err=True)
