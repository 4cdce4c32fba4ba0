"""Reading iptables rules: text in, objects out.

    from lab_utils.iptables import parse

    rules = parse(text)                       # of iptables-save or ip6tables-save; also an open file, line by line
    rules["nat"].chains["KUBE-SERVICES"]      # tables, chains, rules, in kernel order
    rules.service("default/web").endpoints    # with exact probabilities
    rules.jumps_to("KUBE-MARK-MASQ")          # who jumps where
    rules.unknown                             # what this package keeps but cannot judge
    str(rules)                                # the same rules again, for iptables-restore

`lab_utils.trace` says what the rules do to a packet.
"""

from __future__ import annotations

from lab_utils.errors import ParseError
from lab_utils.iptables.chain import Chain
from lab_utils.iptables.ipset import parse_sets
from lab_utils.iptables.parts import Match, Option, Target
from lab_utils.iptables.probability import exact
from lab_utils.iptables.reader import parse
from lab_utils.iptables.rules import Rule
from lab_utils.iptables.ruleset import Ruleset, Table, Unknown
from lab_utils.iptables.services import Endpoint, Service

__all__ = [
    "Chain",
    "Endpoint",
    "Match",
    "Option",
    "ParseError",
    "Rule",
    "Ruleset",
    "Service",
    "Table",
    "Target",
    "Unknown",
    "exact",
    "parse",
    "parse_sets",
]
