"""What `str(ruleset)` gives is accepted by iptables-restore, and comes back from the kernel as the same rules."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab_utils.iptables import Ruleset, parse
from lab_utils.run import run

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]
DATA = Path(__file__).parent.parent / "data"
DUMPS = [path for name in ("*tables-save.txt", "*.save.txt", "*.restore.txt") for path in sorted(DATA.rglob(name))]


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    name = f"krestore{os.getpid()}"
    run(["ip", "netns", "add", name])
    try:
        yield name
    finally:
        run(["ip", "netns", "del", name])


def tool(ruleset: Ruleset) -> str:
    return "ip6tables" if any(table.family == 6 for table in ruleset.dumps) else "iptables"


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_iptables_restore_takes_what_is_given_back(namespace: str, path: Path) -> None:
    ruleset = parse(path.read_text())
    enter = ["nsenter", f"--net=/run/netns/{namespace}"]
    sets = path.with_name("ipset-save.txt")
    if sets.exists() and path.name == "iptables-save.txt":
        run([*enter, "ipset", "restore"], input=sets.read_text())
    run([*enter, f"{tool(ruleset)}-restore", "--test"], input=str(ruleset))
    if "nfacct" in str(ruleset):  # to load such a rule takes a named object, which only nfacct(8) makes
        ruleset = parse("\n".join(line for line in str(ruleset).splitlines() if "nfacct" not in line))
    run([*enter, f"{tool(ruleset)}-restore"], input=str(ruleset))
    again = parse(run([*enter, f"{tool(ruleset)}-save", "-c"]).stdout)
    run([*enter, "nft", "flush", "ruleset"])
    run([*enter, "ipset", "destroy"])
    if path.name.endswith("save.txt"):
        assert [str(rule) for table in sorted(ruleset.tables) for rule in ruleset[table].rules] == [
            str(rule) for table in sorted(again.tables) if table in ruleset for rule in again[table].rules
        ]
    assert len(again) == len(ruleset)
