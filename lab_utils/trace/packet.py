"""The packet that is traced."""

from __future__ import annotations

from dataclasses import dataclass

from lab_utils.errors import BadInput
from lab_utils.iptables.values import PROTOCOLS, read_address, show_address

STATES = ("NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED")


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection, unless `ctstate` says otherwise.

    What is None is not known; a rule that asks for it is then undecided. The zone of an IPv6 address
    (`fe80::1%eth0`) is not part of what rules look at; it is taken as the incoming interface if there is no other.
    `physdev_in` and `physdev_out` are ports of a bridge, for frames that a bridge carries through these rules.
    """

    src: str
    dst: str
    dport: int | None = None
    protocol: str = "tcp"
    sport: int | None = None
    in_interface: str | None = None
    out_interface: str | None = None
    mark: int = 0
    connmark: int = 0
    ctstate: str = "NEW"
    icmp_type: int | str | None = None
    physdev_in: str | None = None
    physdev_out: str | None = None

    def __post_init__(self) -> None:
        versions = set()
        for name in ("src", "dst"):
            said = getattr(self, name)
            address, _, zone = str(said).partition("%")
            try:
                version, number = read_address(address.strip("[]"))
            except ValueError as error:
                raise BadInput(f"the packet's {name}: {error}") from None
            versions.add(version)
            object.__setattr__(self, name, show_address(version, number))
            if zone and self.in_interface is None and name == "src":
                object.__setattr__(self, "in_interface", zone)
        if len(versions) > 1:
            raise BadInput(f"a packet cannot go from {self.src} to {self.dst}: one is IPv4, the other IPv6")
        for name in ("sport", "dport"):
            port = getattr(self, name)
            if port is not None and not (isinstance(port, int) and 0 <= port <= 65535):
                raise BadInput(f"the packet's {name} {port!r} is not a port; ports are 0 to 65535")
        protocol = str(self.protocol).lower()
        if protocol not in PROTOCOLS and not (protocol.isdecimal() and int(protocol) < 256):
            raise BadInput(f"{self.protocol!r} is not a protocol; tcp, udp, sctp and icmp are")
        object.__setattr__(self, "protocol", protocol)
        state = str(self.ctstate).upper()
        if state not in STATES:
            raise BadInput(f"{self.ctstate!r} is not a connection's state", f"It is one of {', '.join(STATES)}")
        object.__setattr__(self, "ctstate", state)

    @property
    def version(self) -> int:
        return 6 if ":" in self.dst else 4

    def __str__(self) -> str:
        src = f"[{self.src}]" if self.version == 6 and self.sport is not None else self.src
        dst = f"[{self.dst}]" if self.version == 6 and self.dport is not None else self.dst
        sport = f":{self.sport}" if self.sport is not None else ""
        dport = f":{self.dport}" if self.dport is not None else ""
        return f"{self.protocol} {src}{sport} → {dst}{dport}"
