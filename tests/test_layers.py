"""The layers point one way: what only thinks never runs a program, and one module runs them all."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lab_utils

PACKAGE = Path(lab_utils.__file__).parent

# Text in, objects out. A folder stands for everything in it.
PURE = (
    "errors",
    "progress",
    "iptables",
    "trace",
    "nft",
    "links",
    "topology",
    "policies",
    "draw",
    "embedded/kubeadm",
    "artifacts/versions",
    "csi/recording",
    "vagrant/settings",
    "vagrant/says",
    "kind/settings",
)
RUNS_PROGRAMS = {
    "run.py",  # the wrapper
    "embedded/privileged.py",  # a conversation with sudo, line by line
    "cnitrial.py",  # runs on a node, where there is no lab_utils
    "csi/disks.py",  # runs in Pods, where there is nothing of this package but its own folder
    "cli/access.py",  # becomes ssh or kubectl
    "grading/sandbox.py",  # a kernel that lives on in its sandbox while the grader talks to it
}
FORBIDDEN = {"subprocess", "socket", "pty", "paramiko", "kubernetes", "requests", "urllib.request"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for statement in ast.walk(ast.parse(path.read_text())):
        if isinstance(statement, ast.Import):
            found.update(alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            found.add(statement.module)
            found.update(f"{statement.module}.{alias.name}" for alias in statement.names)
    return found


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def is_pure(path: Path) -> bool:
    relative = str(path.relative_to(PACKAGE).with_suffix(""))
    return any(relative == pure or relative.startswith(f"{pure}/") for pure in PURE)


@pytest.mark.parametrize("path", [path for path in modules() if is_pure(path)], ids=name)
def test_a_pure_module_reaches_for_no_program_and_no_network(path: Path) -> None:
    reached = imported(path) & (FORBIDDEN | {"os.system", "lab_utils.run", "lab_utils.cluster", "lab_utils.providers"})
    assert not reached, f"{name(path)} imports {', '.join(sorted(reached))}"


def test_every_layer_that_is_named_exists() -> None:
    for pure in PURE:
        assert (PACKAGE / pure).is_dir() or (PACKAGE / f"{pure}.py").is_file(), f"{pure} is named as pure but does not exist"


@pytest.mark.parametrize("path", modules(), ids=name)
def test_programs_are_run_by_the_one_wrapper(path: Path) -> None:
    if name(path) not in RUNS_PROGRAMS:
        assert "subprocess" not in imported(path), f"{name(path)} imports subprocess; use lab_utils.run"


@pytest.mark.parametrize("path", [path for path in modules() if not name(path).startswith("cli/")], ids=name)
def test_only_the_command_line_imports_the_command_line(path: Path) -> None:
    allowed = {"__main__.py", "book.py", "tape.py"}  # `lab`, `python -m lab_utils.book` and `… .tape` are command lines
    reached = {found for found in imported(path) if found == "click" or found.startswith("lab_utils.cli")}
    assert not reached or name(path) in allowed, f"{name(path)} imports {', '.join(sorted(reached))}"
