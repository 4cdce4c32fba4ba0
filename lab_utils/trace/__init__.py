"""What rules do to a packet.

    from lab_utils.iptables import parse
    from lab_utils.trace import Packet, trace

    found = trace(parse(text), Packet("10.244.1.7", "10.96.0.10", 53, protocol="udp"), local_addresses=["192.168.56.11"], origin="pod")
    found.verdict          # "ACCEPT", "DROP" or "REJECT"
    found.destinations     # where it goes, each with its exact probability; empty if nothing rewrites it
    found.masquerade       # whether the source is hidden behind the node's address
    print(found)           # the story, rule by rule; with explain=True also what did not match, and why

The same for the rules of nftables, as `lab_utils.nft.parse` reads them.

A rule that asks for what is not known (a device, the content of a set, the time) is not guessed at. The trace goes on with
what is most plain (the packet comes by another device, the limit is not yet reached, an unknown match does not hold), follows the
other case too, and lists the rule in `found.undecided` if the outcome depends on it.
"""

from __future__ import annotations

from lab_utils.trace.packet import Packet
from lab_utils.trace.path import trace
from lab_utils.trace.story import Destination, Step, Trace, Undecided

__all__ = ["Destination", "Packet", "Step", "Trace", "Undecided", "trace"]
