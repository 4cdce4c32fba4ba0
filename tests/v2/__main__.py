"""`make test-v2`: the embedded provider where most learners have it, on a machine with cgroup v2 alone and systemd as process 1.

python -m tests.v2           build the machine, run it, tell what it found, remove it
python -m tests.v2 --bare    nodes without Kubernetes: control groups, systemd and what is left, in a third of the time
python -m tests.v2 --keep    leave the machine's folder, and say where: its console is in it
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import click

from lab_utils.cli.console import Console
from lab_utils.errors import HostLacks, LabError
from tests.proof import Verdict
from tests.v2 import guest, machine

SPACE = 16  # GB, in the folder for temporary files


@click.command()
@click.option("--keep", is_flag=True, help="Leave the machine's folder.")
@click.option("--accelerator", default="tcg", show_default=True, help="QEMU's; kvm where it is at hand is many times faster.")
@click.option("--bare", is_flag=True, help="Only the nodes, without Kubernetes on them.")
def main(keep: bool, accelerator: str, bare: bool) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="lab-v2-", dir="/var/tmp"))
    try:
        sys.exit(prove(folder, accelerator, bare))
    except LabError as error:
        click.echo(f"lab: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        click.echo("lab: stopped; the machine is gone", err=True)
        sys.exit(130)
    finally:
        if keep:
            click.echo(f"its folder stays: {folder}")
        else:
            shutil.rmtree(folder)
        click.echo(f"{(time.monotonic() - start) / 60:.0f} minutes in all")


def prove(folder: Path, accelerator: str, bare: bool) -> int:
    guest.check_host()
    free = shutil.disk_usage(folder).free // 10**9
    if free < SPACE:
        raise HostLacks(f"{SPACE} GB of disk are needed below {folder.parent}, and {free} GB are free", "Make room")
    click.echo(
        f"A virtual machine is built from Debian packages and runs two clusters, by emulation unless told otherwise.\n"
        f"It takes about three quarters of an hour, two processors, {machine.MEMORY} of memory and up to {SPACE} GB below {folder.parent}; "
        f"all of it is given back at the end."
    )
    made = guest.make(folder, Console())
    verdict = Verdict()
    console = folder / "console.log"
    code = machine.boot(made, console, verdict.line, accelerator=accelerator, bare=bare)
    if not verdict.finished:
        said = console.read_text(errors="replace").splitlines() if console.exists() else []
        click.echo("\n".join(said[-25:]))
        took = f"took longer than {machine.MINUTES} minutes" if code == 124 else f"ended early (QEMU's code is {code})"
        click.echo(f"FAIL  the machine {took}; the end of its console is above")
    click.echo(f"{verdict.passed} passed, {verdict.failed} failed")
    return 0 if verdict.finished and not verdict.failed else 1


if __name__ == "__main__":
    main()
