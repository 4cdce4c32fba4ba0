"""Which processor this machine has, decided in one place for programs, boxes and containers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lab_utils.artifacts import machine
from lab_utils.artifacts.machine import debian_name
from lab_utils.errors import HostLacks
from lab_utils.run import Result


@pytest.mark.parametrize(("name", "expected"), [("x86_64", "amd64"), ("AMD64", "amd64"), ("arm64", "arm64"), ("aarch64", "arm64")])
def test_systems_call_processors_differently(name: str, expected: str) -> None:
    assert debian_name(name) == expected


def test_another_processor_is_refused() -> None:
    with pytest.raises(HostLacks, match="riscv64"):
        debian_name("riscv64")


@pytest.mark.parametrize(
    ("system", "python", "sysctl", "expected"),
    [
        ("Darwin", "x86_64", Result("1\n", "", 0), "arm64"),  # Rosetta
        ("Darwin", "arm64", Result("1\n", "", 0), "arm64"),
        ("Darwin", "x86_64", Result("", "sysctl: unknown oid 'hw.optional.arm64'\n", 1), "amd64"),
        ("Linux", "x86_64", None, "amd64"),
        ("Linux", "aarch64", None, "arm64"),
    ],
)
def test_a_python_for_intel_on_apple_silicon_does_not_decide(
    system: str, python: str, sysctl: Result | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(argv: Sequence[str], *, check: bool) -> Result:
        assert sysctl is not None and argv[-1] == "hw.optional.arm64" and not check
        return sysctl

    monkeypatch.setattr(machine, "run", run)
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: python)
    assert machine.arch.__wrapped__() == expected
