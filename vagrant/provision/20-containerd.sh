#!/bin/bash
# Lays in containerd, runc and the CNI plugins, and configures them.
#
#   KIO_BIN             folder with the programs; the CNI plugins in its folder cni/
#   KIO_PAUSE           the name of the pause image
#   KIO_SYSTEMD_CGROUP  true (default) when systemd manages the node's cgroups, false for plain cgroupfs
#   KIO_RESTRICT_OOM    true where CAP_SYS_RESOURCE is missing, so that oom_score_adj cannot be lowered
#
# The embedded provider decides the last two per host, when a node boots: it rewrites these two lines of config.toml.
set -euo pipefail
: "${KIO_BIN:?the folder with the programs}" "${KIO_PAUSE:?the name of the pause image}"

install -m 755 "$KIO_BIN"/{containerd,containerd-shim-runc-v2,ctr} /usr/local/bin/
install -D -m 755 "$KIO_BIN/runc" /usr/local/sbin/runc
mkdir -p /opt/cni/bin /etc/cni/net.d /var/lib/containerd
install -m 755 "$KIO_BIN"/cni/* /opt/cni/bin/

mkdir -p /etc/containerd
cat > /etc/containerd/config.toml <<END
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
# Snapshotters and plugins that no lab uses. Each that is loaded costs time at start, or warns that it cannot work.
disabled_plugins = [
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "$KIO_PAUSE"

[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = "/etc/containerd/certs.d"

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = ${KIO_RESTRICT_OOM:-false}
  # By default containerd asks every shim once a second how much it has used (stats_collector.go), which costs more than kubelet does on
  # an idle node. kubelet does not need it: it measures by itself (cAdvisor). It is what \`crictl stats\` shows under CPU %.
  stats_collect_period = "10s"

  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/opt/cni/bin"]
    conf_dir = "/etc/cni/net.d"

  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"

    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = "/usr/local/sbin/runc"
        SystemdCgroup = ${KIO_SYSTEMD_CGROUP:-true}
END

# As published with containerd's releases (containerd.service); the limits are what it asks for.
cat > /etc/systemd/system/containerd.service <<'END'
[Unit]
Description=containerd container runtime
Documentation=https://containerd.io
After=network.target dbus.service

[Service]
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/local/bin/containerd
Type=notify
Delegate=yes
KillMode=process
Restart=always
RestartSec=5
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
OOMScoreAdjust=-999

[Install]
WantedBy=multi-user.target
END
systemctl enable containerd.service
