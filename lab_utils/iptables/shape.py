"""The shape of nearly every rule in a large dump, as one pattern.

kube-proxy writes tens of thousands of rules of a few forms. A rule of this shape needs no closer look to be known
well formed, and its destination, port and target can be read off. Any other rule is read word by word
(`rules.parse_spec`); a test holds that both ways agree. Each alternative begins with other letters than the rest,
so matching takes linear time whatever the line says.
"""

from __future__ import annotations

import re

_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_ADDRESS = rf"{_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE}"
_CIDR = rf"{_ADDRESS}(?:/(?:3[0-2]|[12]?[0-9]))?(?![^ ])"
_PORT = r"(?:[0-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]|[1-9][0-9]{0,3}|0)(?![0-9])"
_HEX = r"0x[0-9a-f]{1,8}"
_WORD = r"[A-Za-z0-9][^\s\"]*+"

# (?(n)(?!)|…) refuses what came before: -s is group 1, -d is 2, -p is 3, --dport is 4.
BODY = (
    rf'(?: -m comment --comment (?:"[^"\\]*+"|{_WORD})(?= -|$)'
    rf"|(?: !)? -s (?(1)(?!)|({_CIDR}))"
    rf"| -d (?(2)(?!)|(?P<d>{_CIDR}))"
    rf"| -m (?:tcp|udp|sctp)(?= -p| --dport| -[jsdm]|$)"
    rf"| -p (?(3)(?!)|(tcp|udp|sctp)(?![^ ]))"
    rf"| --dport (?(3)(?(4)(?!)|(?P<dport>{_PORT}))|(?!))"
    rf"| -m statistic --mode random --probability (?:0\.[0-9]++|1\.0++)"
    rf"| -m addrtype --(?:src|dst)-type LOCAL"
    rf"| -m conntrack --ctstate (?:NEW|INVALID|RELATED,ESTABLISHED)(?![^ ])"
    rf"| -m mark --mark {_HEX}/{_HEX}(?![^ ])"
    r")*+"
    rf"(?: -j (?P<j>[A-Za-z][^\s\"]*+)"
    rf"(?:(?<=DNAT) --to-destination {_ADDRESS}:{_PORT}|(?<=MARK) --set-xmark {_HEX}/{_HEX}"
    r"|(?<=REJECT) --reject-with icmp-port-unreachable)?)?"
)
SHAPE = re.compile(BODY, re.ASCII)
