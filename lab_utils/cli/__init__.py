"""The command `lab`. Each subcommand lives in a module of its own and is imported only when it is used."""

from __future__ import annotations

import codecs
import io
import os
import signal
import stat
import sys
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

import click

from lab_utils.errors import LabError

# Command → module:object, in the order that `lab --help` shows them.
COMMANDS = {
    "doctor": "lab_utils.cli.doctor:doctor",
    "prepare": "lab_utils.cli.clusters:prepare",
    "up": "lab_utils.cli.clusters:up",
    "status": "lab_utils.cli.clusters:status",
    "down": "lab_utils.cli.clusters:down",
    "reset": "lab_utils.cli.clusters:reset",
    "kubeconfig": "lab_utils.cli.access:kubeconfig",
    "ssh": "lab_utils.cli.access:ssh",
    "kubectl": "lab_utils.cli.access:kubectl",
    "logs": "lab_utils.cli.access:logs",
    "load": "lab_utils.cli.clusters:load",
    "diagnose": "lab_utils.cli.diagnose:diagnose",
    "trace": "lab_utils.cli.look:trace",
    "topology": "lab_utils.cli.look:topology",
    "service": "lab_utils.cli.look:service",
    "snapshot": "lab_utils.cli.look:snapshot",
    "start": "lab_utils.cli.labs:start",
    "check": "lab_utils.cli.labs:check",
    "hint": "lab_utils.cli.labs:hint",
    "progress": "lab_utils.cli.labs:progress",
    "build": "lab_utils.cli.authoring:build",
    "solution": "lab_utils.cli.authoring:solution",
    "new": "lab_utils.cli.authoring:new",
    "grade": "lab_utils.cli.grade:grade",
}


class LazyCommands(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.command(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
def lab() -> None:
    """A genuine Kubernetes cluster on this machine, and the labs that take it apart."""


def main() -> NoReturn:
    finish(lab, "lab")


def with_sbin(path: str) -> str:
    """PATH with the sbin beside each bin: Debian leaves those out for an ordinary user, and `ip`, `nft` and `sysctl` lie there."""
    own = path.split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([*own, *(f"{folder.removesuffix('bin')}sbin" for folder in own if folder.endswith("/bin"))]))


# What our own lines hold beyond ASCII, for a terminal or a file whose encoding lacks it.
IN_ASCII = {"✓": "+", "✗": "-", "•": "*", "·": "|", "…": "...", "→": "->", "×": "x", "–": "-", "—": "-"}


def in_ascii(error: UnicodeError) -> tuple[str, int]:
    """A codec's error handler: a sign that says the same, or a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(IN_ASCII.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


def say_all() -> None:
    """In a locale such as de_DE.ISO-8859-1, a ✓ is no reason to stop. Where bytes pass through as they are (C.UTF-8), that stays."""
    codecs.register_error("lab", in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "backslashreplace"):
            stream.reconfigure(errors="lab")


def to_nobody() -> None:
    """What is still said goes nowhere: a terminal that is closed answers with an error, which would end the clean-up."""
    for number in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(number).st_mode):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def finish(command: click.Command, name: str) -> NoReturn:
    """Run a command to the end of this process; print what a person can mend as one line, and nothing twice."""
    stopped = 130

    def terminate(number: int, frame: object) -> None:
        """SIGTERM is what `timeout` and CI send, SIGHUP a terminal that is closed: what is held is given back, as after Ctrl-C."""
        nonlocal stopped
        if stopped != 130:
            return  # `timeout` signals the command and then its group: the clean-up has begun
        stopped = 128 + number
        if number == signal.SIGHUP:
            to_nobody()
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as for `nohup lab up &`
            signal.signal(number, terminate)
    if os.environ.get("SUDO_UID"):
        sys.dont_write_bytecode = True  # __pycache__ in the user's checkout would belong to root
    say_all()
    os.environ["PATH"] = with_sbin(os.environ.get("PATH", os.defpath))
    try:
        code = command.main(prog_name=name, standalone_mode=False)
    except LabError as error:
        click.echo(f"lab: {error}", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("lab: stopped", err=True)
        sys.exit(stopped)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:  # in one line, as all else is said
        context = getattr(error, "ctx", None)
        mend = f" See `{context.command_path} --help`" if context else ""
        click.echo(f"lab: {error.format_message()}{mend}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(141)
    except OSError as error:  # a full disk, a file that may not be read: the system's own words, and which file
        click.echo(f"lab: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", err=True)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)
