"""A cluster as it was at one moment: rules, network namespaces, sandboxes and API objects, in a folder of plain files.

    snapshot.json                          when, of which cluster, which versions
    api/{nodes,pods,services,endpointslices}.json
    nodes/NAME/iptables-save.txt, ip6tables-save.txt, nft.json, ipset-save.txt
    nodes/NAME/crictl-pods.json, crictl-ps.json
    nodes/NAME/netns/host.json             what `ip -j` and `bridge -j` print on the node itself
    nodes/NAME/netns/NAMESPACE_POD.json    and in each Pod's network namespace

With a snapshot, everything that explains a network works without a cluster. This module only reads and writes
such folders; `lab_utils.snapshot.record` asks a live cluster. No Secret, ConfigMap, environment variable or
annotation ever gets into one: `lab_utils.snapshot.prune` keeps a short list of fields and drops the rest.
"""

from lab_utils.snapshot.folder import read_snapshot, write_snapshot
from lab_utils.snapshot.model import NodeSnapshot, Sandbox, Snapshot

__all__ = ["NodeSnapshot", "Sandbox", "Snapshot", "read_snapshot", "write_snapshot"]
