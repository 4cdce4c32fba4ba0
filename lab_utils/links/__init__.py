"""Network devices of any number of namespaces, and which of them hang together.

    namespace   one network stack: its devices, addresses, routes, neighbours and forwarding tables
    device      one line of `ip link`; its index is unique only inside its own namespace
    peer        the other end of a veth cable; often in another namespace
    netns id    a small number by which one namespace speaks of another. Namespace A may call B "3" while B calls A "0"
    FDB         a bridge's (or VXLAN device's) table: which MAC address is reached through which port (or machine)
    neighbour   a line of the ARP table: which MAC address has the next IP address

    w1 = read_namespace("w1", {"link": text_of_ip_j_d_link, "route": …, "nsids": …})
    web = read_namespace("default/web", {…})
    match_peers([w1, web])[End("w1", 7, "veth1a2b")].end      # End("default/web", 2, "eth0")

Text in, objects out: nothing here runs a program.
"""

from lab_utils.links.devices import Device, Vxlan
from lab_utils.links.namespace import Namespace, read_namespace
from lab_utils.links.peers import AMBIGUOUS, FOUND, OUTSIDE, End, Peer, match_peers
from lab_utils.links.tables import Forwarding, Neighbour, NextHop, Route

__all__ = [
    "AMBIGUOUS",
    "FOUND",
    "OUTSIDE",
    "Device",
    "End",
    "Forwarding",
    "Namespace",
    "Neighbour",
    "NextHop",
    "Peer",
    "Route",
    "Vxlan",
    "match_peers",
    "read_namespace",
]
