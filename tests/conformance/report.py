"""Reads the JUnit file that ginkgo writes. Pure: text in, results out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree


@dataclass(frozen=True)
class Result:
    name: str
    group: str  # sig-network or sig-node
    outcome: str  # passed, failed, skipped
    seconds: float
    why: str = ""


def read(xml: str, left_out: Mapping[str, str]) -> list[Result]:
    """Every test that ran, or said itself why it would not, or was left out for a reason (expression for its name → reason).

    The thousands that were never chosen are in the file too, and not counted.
    """
    found = []
    for case in ElementTree.fromstring(xml).iter("testcase"):
        name = case.get("name", "").removeprefix("[It] ")
        group = re.match(r"\[(sig-[a-z]+)\]", name)
        if not group or "[Conformance]" not in name:
            continue
        failure = next((case.find(kind) for kind in ("failure", "error") if case.find(kind) is not None), None)
        skipped = case.find("skipped")
        if failure is not None:
            outcome, why = "failed", failure.get("message") or (failure.text or "")
        elif skipped is not None:
            outcome, why = "skipped", skipped.get("message") or ""
            if why in ("", "skipped"):
                why = next((reason for expression, reason in left_out.items() if re.search(expression, name)), "")
                if not why:
                    continue
        else:
            outcome, why = "passed", ""
        found.append(Result(name, group[1], outcome, float(case.get("time", 0)), why.strip()))
    return sorted(found, key=lambda result: result.name)


def table(results: list[Result]) -> str:
    """As the README holds it."""
    lines = ["| group | passed | failed | skipped |", "|---|---:|---:|---:|"]
    for group in [*sorted({result.group for result in results}), "together"]:
        counts = [
            sum(result.outcome == outcome for result in results if group in (result.group, "together"))
            for outcome in ("passed", "failed", "skipped")
        ]
        lines.append(f"| {group} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)
