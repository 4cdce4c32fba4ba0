"""The kernel's own steps, taken one by one on what was read from every namespace.

A packet is carried on until someone takes it as his own. Where the tables give no answer the way ends there, and its
last hop says what is missing: that is often just what a learner is looking for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from lab_utils.errors import BadInput
from lab_utils.links import FOUND, Device, Namespace
from lab_utils.topology import ends
from lab_utils.topology.hops import Flight, Hop, Path, Way, address_of, rules_of, split_address
from lab_utils.topology.model import Topology

if TYPE_CHECKING:
    from lab_utils.trace.flow import Origin

LONGEST = 64  # hops; more than any real way, so that rules and routes in a circle come to an end


class Walker:
    def __init__(self, topology: Topology) -> None:
        self.topology = topology

    def path(self, a: str, b: str, port: int | None, protocol: str) -> Path:
        start, source, label = ends.source(self.topology, a)
        target, name, port = ends.target(self.topology, b, port, protocol, ip_address(source).version if source else 4)
        if not source:
            source = ends.own_address(self.topology, start, target)
        if ip_address(source).version != ip_address(target).version:
            raise BadInput(f"{label} has {source}, and {name} has {target}: IPv4 does not reach IPv6")
        flight = Flight(source, target, port, protocol)
        ways = tuple(self._way(done) for done in self._ip_layer(start, None, flight))
        return Path(label, name, ways)

    def _way(self, flight: Flight) -> Way:
        pod = self.topology.pod_with_ip(flight.dst)
        return Way(address_of(flight), flight.probability, flight.hops, pod.key if pod else "", flight.masquerade)

    # -- the kernel's steps ------------------------------------------------------------------------------------------

    def _hop(self, kind: str, ns: Namespace, device: Device | None, what: str, *why: str) -> Hop:
        return Hop(
            kind, self.topology.place_of(ns.name), ns.name, device.name if device else "", what, tuple(reason for reason in why if reason)
        )

    def _ip_layer(self, ns: Namespace, came_by: Device | None, flight: Flight) -> list[Flight]:
        """The packet is in a namespace's IP layer: rules first, then the routing decision."""
        place = (ns.name, flight.dst)
        if len(flight.hops) > LONGEST or (place in flight.visited and came_by is not None):
            return [flight.hop(self._hop("lost", ns, came_by, "goes in circles: it was here before, with the same destination"))]
        flight = replace(flight, visited=(*flight.visited, place))
        if self._not_judged_yet(ns, flight):
            origin: Origin = "external"
            if came_by is None:
                origin = "local"
            elif came_by.kind == "bridge" or self._leads_to_a_pod(ns, came_by):
                origin = "pod"
            return self._rules(ns, came_by, flight, origin, lambda going: self._route(ns, came_by, going))
        return self._route(ns, came_by, flight)

    def _not_judged_yet(self, ns: Namespace, flight: Flight) -> bool:
        """Rules are asked on nodes, about packets that no tunnel hides, once for each source and destination that a packet has there."""
        return (
            ns.name in self.topology.nodes
            and flight.dport is not None
            and flight.inner is None
            and flight.marked(ns.name) not in flight.judged
        )

    def _rules(
        self,
        ns: Namespace,
        came_by: Device | None,
        flight: Flight,
        origin: Origin,
        onward: Callable[[Flight], list[Flight]],
        ports: tuple[Device, Device] | None = None,
    ) -> list[Flight]:
        from lab_utils.trace import Packet

        packet = Packet(
            flight.src,
            flight.dst,
            flight.dport,
            protocol=flight.protocol,
            in_interface=came_by.name if came_by else None,
            physdev_in=ports[0].name if ports else None,
            physdev_out=ports[1].name if ports else None,
        )
        result = self.topology.nodes[ns.name].trace(packet, origin)
        if result is None:
            return onward(flight)
        done: list[Flight] = []
        share = len({end.address for end in result.outcomes}) > 1
        for end in result.outcomes:
            masked = flight.masquerade or end.masquerade
            going = replace(flight, probability=flight.probability * end.probability, masquerade=masked)
            if end.rewritten:
                address, dport = split_address(end.address)
                going = replace(going, dst=address, dport=dport if dport is not None else flight.dport)
                chance = f", with probability {end.probability}" if share else ""
                masks = ", and its source the node's own on the way out (masquerade)" if end.masquerade else ""
                what = f"destination {address_of(flight)} becomes {address_of(going)}{chance}{masks}"
                going = going.hop(self._hop("rules", ns, came_by, what, *rules_of(end.steps)))
            if end.verdict == "ACCEPT":
                going = replace(going, src=split_address(end.source)[0]) if end.source else going
                done += onward(replace(going, judged=(*going.judged, flight.marked(ns.name), going.marked(ns.name))))
            else:
                said = "dropped" if end.verdict == "DROP" else "rejected (the sender gets an error)"
                done.append(going.hop(self._hop("lost", ns, None, f"{said}, by the node's rules", *rules_of(end.steps))))
        return done

    def _leads_to_a_pod(self, ns: Namespace, device: Device) -> bool:
        peer = self.topology.peer(ns.name, device)
        return bool(peer and peer.end and peer.end.namespace in self.topology.pods)

    def _route(self, ns: Namespace, came_by: Device | None, flight: Flight) -> list[Flight]:
        mine = ns.owner(flight.dst)
        if mine is not None:
            return self._deliver(ns, mine, came_by, flight)
        route = ns.route(flight.dst)
        if route is None:
            return [flight.hop(self._hop("lost", ns, came_by, f"no route to {flight.dst}: the packet cannot go on"))]
        device = ns.device(route.device)
        if route.kind != "unicast" or device is None:
            return [flight.hop(self._hop("lost", ns, came_by, f"the route to {flight.dst} leads nowhere", str(route)))]
        if not device.up:
            return [flight.hop(self._hop("lost", ns, device, f"{device.name} is down", f"route {route}"))]
        if (
            flight.masquerade
            and came_by is not None
            and flight.inner is None
            and len(ns.name.split("/")) == 1
            and flight.src not in ns.addresses
        ):
            flight = replace(flight, src=route.source or ends.own_address(self.topology, ns, flight.dst))
        next_ip = route.gateway or flight.dst
        if device.kind == "vxlan":
            return self._wrap(ns, device, next_ip, str(route), flight)
        if device.kind in ("ipip", "sit", "ip6tnl", "gre"):
            return self._tunnel(ns, device, next_ip, str(route), flight)
        neighbour = ns.neighbour(next_ip, device.name)
        arp = f"ARP {neighbour}" if neighbour else ""
        whither = f"next {next_ip}" if route.gateway else f"{next_ip} is on this link"
        kind = "send" if came_by is None and not flight.hops else "route"
        outer = f"the outer packet {flight.src} → {flight.dst}: " if flight.inner else ""
        flight = flight.hop(self._hop(kind, ns, device, f"{outer}routed to {device.name}, {whither}", f"route {route}", arp))
        mac = neighbour.mac if neighbour else ""
        if device.kind == "bridge":
            return self._bridge(ns, device, None, next_ip, mac, flight)
        return self._cross(ns, device, next_ip, mac, flight)

    def _deliver(self, ns: Namespace, mine: Device, came_by: Device | None, flight: Flight) -> list[Flight]:
        at = came_by or mine
        if flight.inner is None:
            who = f"Pod {ns.name}" if ns.name in self.topology.pods else f"node {ns.name}"
            return [
                flight.hop(
                    self._hop("arrive", ns, at, f"{flight.dst} is {who}'s own address: delivered", f"{flight.dst} is on {mine.name}")
                )
            ]
        kind, _, number = flight.tunnel.partition(" ")
        for device in ns.devices:
            if device.kind == kind and (device.vxlan is None or str(device.vxlan.vni) == number):
                inner = replace(flight.inner, hops=flight.hops, visited=flight.inner.visited)
                what = f"unwrapped by {device.name}: inside is {inner.src} → {inner.dst}"
                return self._ip_layer(
                    ns, device, inner.hop(self._hop("unwrap", ns, device, what, f"{flight.tunnel}, outer address {flight.dst}"))
                )
        return [flight.hop(self._hop("lost", ns, at, f"nobody here unwraps {flight.tunnel}"))]

    def _bridge(self, ns: Namespace, bridge: Device, port: Device | None, next_ip: str, mac: str, flight: Flight) -> list[Flight]:
        """A frame inside a bridge: up to the node's IP layer, or out through a port."""
        own = mac == bridge.mac or any(str(address.ip) == next_ip for address in bridge.addresses)
        if port is not None and own:
            hop = self._hop(
                "bridge",
                ns,
                bridge,
                f"the frame is for {bridge.name} itself: up to the node's IP layer",
                f"{next_ip} is on {bridge.name}, MAC {bridge.mac}",
            )
            return self._ip_layer(ns, bridge, flight.hop(hop))
        entry = ns.port(mac, bridge.name) if mac else None
        out = ns.device(entry.device) if entry else None
        why = f"FDB {entry}" if entry else ""
        if out is None:
            out = self._port_towards(ns, bridge, next_ip, mac)
            why = (
                f"the FDB has no entry for it (any more): the bridge asks at all ports, and {next_ip} answers behind this one"
                if out
                else ""
            )
        if out is None:
            return [flight.hop(self._hop("lost", ns, bridge, f"nobody on {bridge.name} has {next_ip}"))]
        if out == port and not out.hairpin:
            return [flight.hop(self._hop("lost", ns, out, "the frame would go back where it came from, and hairpin is off", why))]
        port_out = out

        def send(going: Flight) -> list[Flight]:
            if going.dst != flight.dst:
                return self._ip_layer(ns, bridge, going)  # the kernel takes a bridged packet up when a rule rewrites it
            said = self._hop("bridge", ns, port_out, f"{bridge.name} sends the frame out through port {port_out.name}", why)
            return self._cross(ns, port_out, next_ip, mac, going.hop(said))

        # Kubernetes has nodes show bridged packets to the rules too: net.bridge.bridge-nf-call-iptables = 1.
        if port is not None and self._not_judged_yet(ns, flight):
            return self._rules(ns, bridge, flight, "pod", send, (port, out))
        return send(flight)

    def _port_towards(self, ns: Namespace, bridge: Device, ip: str, mac: str) -> Device | None:
        for port in ns.ports(bridge.name):
            peer = self.topology.peer(ns.name, port)
            if peer and peer.verdict == FOUND and peer.end:
                there = self.topology.namespaces[peer.end.namespace]
                device = there.device(peer.end.index)
                if device and ((mac and device.mac == mac) or there.owner(ip)):
                    return port
        return None

    def _cross(self, ns: Namespace, device: Device, next_ip: str, mac: str, flight: Flight) -> list[Flight]:
        """Out of a device: through a veth cable, or on to the network that the nodes share."""
        peer = self.topology.peer(ns.name, device)
        if peer and peer.verdict == FOUND and peer.end:
            there = self.topology.namespaces[peer.end.namespace]
            other = there.device(peer.end.index)
            assert other is not None  # the matcher took it from there
            bridge = there.device(other.master) if other.master else None
            joined = f", a port of {bridge.name}" if bridge else ""
            flight = flight.hop(
                self._hop("cable", there, other, f"comes out of {other.name}{joined}, the other end of {device.name}", peer.evidence)
            )
            if bridge is not None and bridge.kind == "bridge":
                return self._bridge(there, bridge, other, next_ip, mac, flight)
            return self._ip_layer(there, other, flight)
        if peer and peer.candidates:
            return [flight.hop(self._hop("lost", ns, device, f"it is not clear where the cable at {device.name} ends", peer.evidence))]
        if ns.name not in self.topology.nodes:
            why = peer.evidence if peer else ""
            return [flight.hop(self._hop("lost", ns, device, f"the other end of {device.name} is not among what was read", why))]
        return self._wire(ns, device, next_ip, flight)

    def _wire(self, ns: Namespace, device: Device, next_ip: str, flight: Flight) -> list[Flight]:
        for node in self.topology.nodes.values():
            owner = node.netns.owner(next_ip)
            if node.name != ns.name and owner is not None:
                hop = self._hop(
                    "wire", node.netns, owner, f"over the nodes' own network to {node.name}", f"{next_ip} is on {owner.name} of {node.name}"
                )
                return self._ip_layer(node.netns, owner, flight.hop(hop))
        return [
            flight.hop(
                Hop(
                    "leave",
                    "",
                    "",
                    "",
                    f"leaves through {device.name} of {ns.name} towards {next_ip}, which is not a part of what was read",
                )
            )
        ]

    def _wrap(self, ns: Namespace, device: Device, next_ip: str, route: str, flight: Flight) -> list[Flight]:
        """Into a VXLAN: who has the next IP (ARP), and on which machine is that MAC (FDB)? Both were written by flannel."""
        assert device.vxlan is not None
        neighbour = ns.neighbour(next_ip, device.name)
        if neighbour is None:
            return [
                flight.hop(
                    self._hop("lost", ns, device, f"no ARP entry for {next_ip} on {device.name}: nobody wrote one", f"route {route}")
                )
            ]
        entry = ns.vtep(neighbour.mac, device.name)
        if entry is None:
            return [
                flight.hop(
                    self._hop(
                        "lost", ns, device, f"no FDB entry for {neighbour.mac} on {device.name}", f"route {route}", f"ARP {neighbour}"
                    )
                )
            ]
        what = f"wrapped by {device.name} (VNI {device.vxlan.vni}) into UDP to {entry.to}:{device.vxlan.port}"
        hop = self._hop("wrap", ns, device, what, f"route {route}", f"ARP {neighbour}", f"FDB {entry}")
        flight = flight.hop(hop)
        outer = Flight(
            device.vxlan.local, entry.to, None, "udp", flight.hops, flight.probability, inner=flight, tunnel=f"vxlan {device.vxlan.vni}"
        )
        return self._route(ns, device, outer)

    def _tunnel(self, ns: Namespace, device: Device, next_ip: str, route: str, flight: Flight) -> list[Flight]:
        """IP in IP: the gateway of the route is the other machine."""
        flight = flight.hop(
            self._hop("wrap", ns, device, f"wrapped by {device.name} ({device.kind}) into a packet to {next_ip}", f"route {route}")
        )
        outer = Flight(
            ends.own_address(self.topology, ns, next_ip),
            next_ip,
            None,
            device.kind,
            flight.hops,
            flight.probability,
            inner=flight,
            tunnel=device.kind,
        )
        return self._route(_without_device(ns, device.name), device, outer)


def _without_device(ns: Namespace, device: str) -> Namespace:
    """The namespace as the outer packet sees it: it must not enter the tunnel again."""
    return replace(ns, routes=tuple(route for route in ns.routes if route.device != device))
