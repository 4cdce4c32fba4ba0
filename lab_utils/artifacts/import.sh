#!/bin/bash
# Runs inside the node root: fills /var/lib/containerd with images by the node's own containerd, and ends it.
# It is the first process of a pid namespace, so nothing that it started can outlive it.
#
#   import.sh PAUSE FILE.tar=NAME…     FILE.tar in /mnt/images
set -euo pipefail
pause=$1
shift
socket=/run/containerd/containerd.sock
log=/tmp/containerd.log
ctr() { command ctr -a "$socket" -n k8s.io "$@"; }

# Without the CRI plugin: it would look for a network and for control groups, which only a node has.
cat > /tmp/config.toml <<END
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images", "io.containerd.nri.v1.nri"]
[grpc]
  address = "$socket"
END
containerd -c /tmp/config.toml >"$log" 2>&1 &
daemon=$!
for _ in $(seq 200); do
    [ -S "$socket" ] && ctr version >/dev/null 2>&1 && break
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.05
done
ctr version >/dev/null 2>&1 || { tail -n 5 "$log"; exit 1; }

for pair in "$@"; do
    file=${pair%%=*} name=${pair#*=}
    echo "import $name"
    # In the process itself: containerd's own transfer service knows fewer ways to import.
    ctr images import --local --snapshotter overlayfs "/mnt/images/$file" >/dev/null
    # What the CRI plugin writes on images that it pulled (internal/cri/labels): it then takes them for its own.
    ctr images label "$name" io.cri-containerd.image=managed >/dev/null
    if [ "$name" = "$pause" ]; then ctr images label "$name" io.cri-containerd.pinned=pinned >/dev/null; fi
done
ctr images check | awk 'NR > 1 && !/complete/ {print; bad = 1} END {exit bad}'
kill "$daemon"
wait "$daemon" || true
