"""When a cluster is up: what its answers say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab_utils.embedded.gate import proxy_has_synced

TIMES = {"lastUpdated": "2026-11-29T08:00:00Z", "currentTime": "2026-11-29T08:00:00Z", "nodeEligible": True}
WRITTEN = {"lastUpdated": "2026-11-29T08:00:00Z", "healthy": True}


@pytest.mark.parametrize(
    ("said", "synced"),
    [
        ({**TIMES, "healthy": True, "status": {"IPv4": WRITTEN, "IPv6": WRITTEN}}, True),
        ({**TIMES, "healthy": True, "status": {"IPv6": WRITTEN}}, False),
        ({**TIMES, "healthy": True}, False),
        (TIMES, True),
        (None, False),
    ],
    ids=["rules are written", "not yet for IPv4", "it has only started", "an older release", "nothing"],
)
def test_kube_proxy_has_written_its_rules(said: dict[str, Any] | None, synced: bool) -> None:
    assert proxy_has_synced(json.dumps(said)) is synced


@pytest.mark.parametrize("said", ["", "404 page not found"], ids=["nobody answers", "somebody else answers"])
def test_no_answer_is_no_kube_proxy(said: str) -> None:
    assert not proxy_has_synced(said)
