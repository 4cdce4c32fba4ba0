"""Nodes, Pods and Services, joined with the devices that carry their packets.

    topology = Topology.from_snapshot(read_snapshot(folder))     # or record(cluster) for a live one
    topology.pods_on("w1")
    topology.path("default/web-1", "default/web-2")              # hop by hop, each with its evidence
    topology.path("default/web-1", "service/default/shop", port=80).ways   # one way for each endpoint

Pure: what is needed has been read before.
"""

from lab_utils.topology.hops import Hop, Path, Way
from lab_utils.topology.model import Cable, NodeView, Pod, Service, ServicePort, Topology

__all__ = ["Cable", "Hop", "NodeView", "Path", "Pod", "Service", "ServicePort", "Topology", "Way"]
