"""Drawings of what a cluster's network looks like now. They show by themselves in a notebook and in the book.

    draw.cluster(topology)                        every node, its Pods, bridges, tunnels and how the nodes are joined
    draw.node(topology, "w1")                     one node with both ends of every cable
    draw.path(topology.path(a, b), topology)      a packet's way, lit and numbered
    draw.service(ruleset, "default/web", topology)    the chains of a Service, with probabilities
    draw.trace(trace)                             what the rules did to one packet
    draw.processes({"cp": look(node), …})         processes, and which are in containers (lab_utils.processes)
    draw.truth(table(world, pods, port=80), seen)  who may connect to whom, and what really happened (lab_utils.policies)
    draw.ingress(look(cluster, "book-10"))        from hosts and paths to Pods (lab_utils.ingress)
    draw.volumes(look(cluster, "book-12"))        from Pods through claims and volumes to folders (lab_utils.volumes)
    draw.calls(recording.calls(log, "w1"))        who called a CSI driver, and when (lab_utils.csi.recording)

Each returns a `Drawing`: `.svg`, `.table` (the same facts, for who does not see the picture), `.save(path)`.
The same facts always give the same bytes.
"""

from lab_utils.draw.calls import calls
from lab_utils.draw.canvas import Drawing
from lab_utils.draw.chains import service
from lab_utils.draw.ingress import ingress
from lab_utils.draw.nodes import cluster, node
from lab_utils.draw.processes import processes
from lab_utils.draw.story import trace
from lab_utils.draw.table import Table
from lab_utils.draw.truth import truth
from lab_utils.draw.volumes import volumes
from lab_utils.draw.way import path

__all__ = ["Drawing", "Table", "calls", "cluster", "ingress", "node", "path", "processes", "service", "trace", "truth", "volumes"]
