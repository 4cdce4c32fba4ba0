"""What the driver's log says: who called what, when, and what the answer was. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

# What a process asks before it asks for anything else; a story of one Pod is easier to read without.
SMALL_TALK = ("GetPluginInfo", "GetPluginCapabilities", "Probe", "ControllerGetCapabilities", "NodeGetCapabilities", "NodeGetVolumeStats")


@dataclass(frozen=True)
class Call:
    """One call at one of the driver's sockets, which are named after who uses them."""

    at: datetime
    seconds: float
    caller: str
    service: str
    method: str
    concerns: tuple[str, ...]
    code: str
    why: str
    node: str

    @property
    def ok(self) -> bool:
        return self.code == "OK"


def calls(log: str, node: str = "") -> list[Call]:
    """The calls in one driver's log, in the order in which they began. Lines that are none are passed over."""
    found = []
    for line in log.splitlines():
        try:
            told = json.loads(line)
            service, _, method = told["method"].partition("/")
            at = datetime.fromisoformat(told["at"])
            call = Call(at, told["seconds"], told["door"], service, method, tuple(told["concerns"]), told["code"], told["why"], node)
        except (ValueError, KeyError, TypeError):
            continue
        found.append(call)
    return sorted(found, key=lambda call: call.at)


def about(found: Iterable[Call], volume: str) -> list[Call]:
    """Those that concern one volume."""
    return [call for call in found if volume in call.concerns]


def story(found: Iterable[Call], since: datetime | None = None) -> list[Call]:
    """Without small talk, and from a moment on."""
    return [call for call in found if call.method not in SMALL_TALK and (since is None or call.at >= since)]


def callers(found: Sequence[Call]) -> list[str]:
    """Who called, in the order of their first calls."""
    return list(dict.fromkeys(call.caller for call in found))
