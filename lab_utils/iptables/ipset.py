"""Reading `ipset save`: the sets that `-m set --match-set` looks into."""

from __future__ import annotations

from collections.abc import Iterable

from lab_utils.errors import ParseError


def parse_sets(text: str | Iterable[str]) -> dict[str, list[str]]:
    """Name → entries, each as ipset prints it: `10.0.0.1`, `10.0.0.0/8 nomatch`, `10.0.0.1,tcp:80`.

    A timeout, counters or a comment of an entry are left out. `list:set` entries are the names of sets.
    """
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(text.split("\n") if isinstance(text, str) else text, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in ("create", "-N") and len(words) >= 3:
            sets[words[1]] = []
        elif words[0] in ("add", "-A") and len(words) >= 3:
            if words[1] not in sets:
                raise ParseError(f"an entry is added to the set {words[1]!r}, which no line before creates", number)
            sets[words[1]].append(f"{words[2]} nomatch" if "nomatch" in words[3:] else words[2])
        else:
            raise ParseError("a line of `ipset save` begins with create or add", number)
    return sets
