"""The typed values that options carry: networks, ports, numbers under a mask, lists of words.

Each reader takes the word as it stands in the rule and gives the value, or raises ValueError with a
sentence that says what such a word must look like.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

FULL = 0xFFFFFFFF
DOTTED = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})")
SERVICES = {"domain": 53, "http": 80, "https": 443, "ssh": 22, "ntp": 123, "bootps": 67, "bootpc": 68, "smtp": 25, "ftp": 21, "telnet": 23}
# /etc/protocols, as far as rules speak of it. iptables-save prints names where it knows them.
PROTOCOLS = {
    "all": 0,
    "icmp": 1,
    "igmp": 2,
    "ipencap": 4,
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "ipv6": 41,
    "ipv6-route": 43,
    "ipv6-frag": 44,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": 58,
    "ipv6-icmp": 58,
    "ospf": 89,
    "ipip": 94,
    "pim": 103,
    "vrrp": 112,
    "sctp": 132,
    "mh": 135,
    "ipv6-mh": 135,
    "udplite": 136,
}


class Network(NamedTuple):
    """Addresses that agree with `address` in the bits of `mask`. The mask may have holes, as the kernel allows."""

    version: int
    address: int
    mask: int

    def holds(self, version: int, address: int) -> bool:
        return version == self.version and address & self.mask == self.address

    @property
    def single(self) -> bool:
        """Whether this is one address only."""
        return self.mask == (FULL if self.version == 4 else (1 << 128) - 1)

    def __str__(self) -> str:
        whole = 32 if self.version == 4 else 128
        length = self.mask.bit_count()
        straight = self.mask == ((1 << length) - 1) << (whole - length)
        return f"{show_address(self.version, self.address)}/{length if straight else show_address(self.version, self.mask)}"


class Range(NamedTuple):
    """Numbers from `first` to `last`, both included: ports, lengths, marks."""

    first: int
    last: int

    def holds(self, number: int) -> bool:
        return self.first <= number <= self.last


class Masked(NamedTuple):
    """A mark and the bits of it that count."""

    value: int
    mask: int


class AddressRange(NamedTuple):
    version: int
    first: int
    last: int

    def holds(self, version: int, address: int) -> bool:
        return version == self.version and self.first <= address <= self.last


class Place(NamedTuple):
    """Where DNAT and SNAT lead: addresses (none: keep) and ports (none: keep)."""

    addresses: AddressRange | None
    ports: Range | None


class SetUse(NamedTuple):
    """A set and which side of the packet is looked up in each of its dimensions."""

    name: str
    sides: tuple[str, ...]


def show_address(version: int, address: int) -> str:
    if version == 4:
        return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"
    return str(ipaddress.IPv6Address(address))


def read_address(word: str) -> tuple[int, int]:
    """An address as (4 or 6, number)."""
    if (dotted := DOTTED.fullmatch(word)) is not None:
        a, b, c, d = map(int, dotted.groups())
        if a < 256 and b < 256 and c < 256 and d < 256:
            return 4, a << 24 | b << 16 | c << 8 | d
    if ":" not in word:
        raise ValueError(f"{word!r} is not an address")
    try:
        address = ipaddress.IPv6Address(word)
    except ValueError:
        raise ValueError(f"{word!r} is not an address") from None
    if address.scope_id is not None:
        raise ValueError(f"{word!r} has a zone; rules match addresses only, so name the interface with -i or -o")
    return 6, int(address)


def network(word: str) -> Network:
    base, slash, length = word.partition("/")
    version, address = read_address(base)
    whole = 32 if version == 4 else 128
    if not slash:
        mask = (1 << whole) - 1
    elif length.isdecimal() and length.isascii():
        if len(length) > 3 or int(length) > whole:
            raise ValueError(f"/{length} is longer than an address of {whole} bits")
        mask = ((1 << int(length)) - 1) << (whole - int(length))
    else:
        other, mask = read_address(length)
        if other != version:
            raise ValueError(f"the mask of {word!r} is of another address family")
    return Network(version, address & mask, mask)


def address_range(word: str) -> AddressRange:
    first, dash, last = word.partition("-")
    version, low = read_address(first)
    other, high = read_address(last) if dash else (version, low)
    if other != version or high < low:
        raise ValueError(f"{word!r} is not a range of addresses")
    return AddressRange(version, low, high)


def number(word: str) -> int:
    try:
        if not word.isascii() or "_" in word or word[:1] not in "0123456789":
            raise ValueError
        if len(word) > 1 and word[0] == "0" and word[1] not in "xX":
            return int(word, 8)  # as strtoul(3) reads it
        return int(word, 0)
    except ValueError:
        raise ValueError(f"{word!r} is not a number") from None


def port(word: str) -> int:
    value = SERVICES.get(word, -1)
    if value < 0:
        value = number(word)
    if value > 65535:
        raise ValueError(f"{word} is not a port; ports end at 65535")
    return value


def _span(word: str, mark: str) -> Range:
    first, found, last = word.partition(mark)
    low = port(first) if first or not found else 0
    high = (port(last) if last else 65535) if found else low
    if high < low:
        raise ValueError(f"the range {word!r} runs backwards")
    return Range(low, high)


def ports(word: str) -> tuple[Range, ...]:
    return (_span(word, ":"),)


def port_list(word: str) -> tuple[Range, ...]:
    listed = tuple(_span(part, ":") for part in word.split(","))
    if len(listed) > 15:
        raise ValueError("multiport takes at most 15 ports")
    return listed


def to_ports(word: str) -> Range:
    return _span(word.partition("/")[0], "-")


def length(word: str) -> tuple[Range, ...]:
    first, found, last = word.partition(":")
    low = number(first) if first else 0
    return (Range(low, (number(last) if last else 1 << 64) if found else low),)


def masked(word: str) -> Masked:
    value, slash, mask = word.partition("/")
    return Masked(number(value) & FULL, number(mask) & FULL if slash else FULL)


def protocol(word: str) -> int:
    known = PROTOCOLS.get(word.lower())
    if known is not None:
        return known
    value = number(word)
    if value > 255:
        raise ValueError(f"{word} is not a protocol; protocols end at 255")
    return value


def upper_words(word: str) -> frozenset[str]:
    if not word or not all(word.split(",")):
        raise ValueError("a list of words with commas between them is expected")
    return frozenset(word.upper().split(","))


CT_STATES = frozenset({"NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED", "SNAT", "DNAT"})
ADDRESS_TYPES = frozenset(
    ["UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT", "THROW", "NAT", "XRESOLVE"]
)


def ct_states(word: str) -> frozenset[str]:
    states = upper_words(word)
    if not states <= CT_STATES:
        raise ValueError(f"{', '.join(sorted(states - CT_STATES))} is not a state of a connection")
    return states


def address_types(word: str) -> frozenset[str]:
    types = upper_words(word)
    if not types <= ADDRESS_TYPES:
        raise ValueError(f"{', '.join(sorted(types - ADDRESS_TYPES))} is not a type of address")
    return types


def fraction(word: str) -> str:
    """A probability stays text: what fraction it means depends on the rules after it (`probability.exact`)."""
    whole, dot, digits = word.partition(".")
    if not (whole.isdecimal() and whole.isascii()) or (dot and not (digits.isdecimal() and digits.isascii())) or float(word) > 1:
        raise ValueError(f"{word!r} is not a probability between 0 and 1")
    return word


def place(word: str) -> Place:
    """`10.0.0.1`, `10.0.0.1-10.0.0.9:80`, `:80`, `[fd00::1]:80-90`, `fd00::1`."""
    ports_word = ""
    if word.startswith("["):
        where, closed, rest = word[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError(f"{word!r} is not an address with a port")
        if "]" in rest:  # [fd00::1]-[fd00::9]:80
            raise ValueError(f"{word!r} is not an address with a port")
        ports_word = rest[1:]
    elif word.count(":") == 1:
        where, _, ports_word = word.partition(":")
    else:
        where = word
    return Place(address_range(where) if where else None, to_ports(ports_word) if ports_word else None)


def set_use(name: str, sides: str) -> SetUse:
    listed = tuple(sides.split(","))
    if not name or not all(side in ("src", "dst") for side in listed) or len(listed) > 6:
        raise ValueError(f"{sides!r} must say src or dst for each part of the set")
    return SetUse(name, listed)
