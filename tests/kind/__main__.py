"""`make test-kind`: the kind provider on a machine that need not have Docker.

python -m tests.kind                 everything: the conformance suite, lab 08 graded, the ways in which it can go wrong
python -m tests.kind -k expression   only those tests of the suite
python -m tests.kind --bench FILE    only the race between `lab up` and `kind create cluster`

Debian's dockerd and the kind command are unpacked and built into a folder. The daemon runs by hand in network, mount and process
namespaces of its own, so that its bridges, firewall rules and mounts end with the test, however that ends; what is left to put back
are some sysctls and control groups of the whole machine, and they are compared too.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from lab_utils import artifacts
from lab_utils.cli.console import Console
from lab_utils.errors import HostLacks, LabError
from tests.kind import daemon, host

SPACE = 12  # GB, in the folder for temporary files
ALONE = ["setpriv", "--pdeathsig=KILL", "--", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


@click.command()
@click.option("-k", "expression", default="", help="Only tests of the suite whose names match, as pytest's -k.")
@click.option("--bench", metavar="FILE", default="", help="Only race `lab up` against `kind create cluster`; the rows go into FILE.")
def main(expression: str, bench: str) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="lab-kind-", dir="/var/tmp"))
    before = host.look()
    code = 2
    try:
        check_host(folder)
        code = prove(folder, expression, bench)
    except LabError as error:
        click.echo(f"lab: {error}", err=True)
    except KeyboardInterrupt:
        click.echo("lab: stopped; Docker is gone", err=True)
        code = 130
    finally:
        host.put_back(before)
        shutil.rmtree(folder, ignore_errors=True)
    if left := host.difference(before, host.look()):
        click.echo("FAIL  the host is not as it was found:\n" + "\n".join(f"  {line}" for line in left))
        code = code or 1
    else:
        click.echo("ok  the host is as it was found: mounts, links, routes, rules, sysctls, control groups")
    click.echo(f"{(time.monotonic() - start) / 60:.1f} minutes in all")
    sys.exit(code)


def check_host(folder: Path) -> None:
    if os.geteuid() != 0:
        raise HostLacks("dockerd can only be started by root", f"sudo {sys.executable} -m tests.kind")
    missing = [program for program in ("apt-get", "dpkg-deb", "unshare", "setpriv") if not shutil.which(program)]
    if missing:
        raise HostLacks(f"programs are missing: {', '.join(missing)}", "This test unpacks Debian's Docker")
    free = shutil.disk_usage(folder).free // 10**9
    if free < SPACE:
        raise HostLacks(f"{SPACE} GB of disk are needed below {folder.parent}, and {free} GB are free", "Make room")


def prove(folder: Path, expression: str, bench: str) -> int:
    progress = Console()
    click.echo(f"Docker and kind are made ready in {folder}; all of it, up to {SPACE} GB, is given back at the end.")
    artifacts.prepare(progress)
    daemon.packages(folder, progress)
    daemon.kind(folder, progress)
    words = [
        sys.executable,
        "-m",
        "tests.kind.inside",
        str(folder),
        *(["--bench", bench] if bench else []),
        *(["-k", expression] if expression else []),
    ]
    with subprocess.Popen([*ALONE, *words], start_new_session=True) as inside:
        try:
            return inside.wait()
        except BaseException:
            inside.send_signal(signal.SIGKILL)  # the namespaces end with their first process, and everything in them
            inside.wait()
            raise


if __name__ == "__main__":
    main()
