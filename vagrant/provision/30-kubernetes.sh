#!/bin/bash
# Lays in kubelet, kubeadm, kubectl and crictl, with kubelet's unit as in the official packages.
#
#   KIO_BIN   folder with the programs
set -euo pipefail
: "${KIO_BIN:?the folder with the programs}"

install -m 755 "$KIO_BIN"/{kubelet,kubeadm,kubectl,crictl,etcdctl} /usr/bin/
mkdir -p /etc/kubernetes/manifests /var/lib/kubelet

cat > /etc/crictl.yaml <<'END'
runtime-endpoint: unix:///run/containerd/containerd.sock
image-endpoint: unix:///run/containerd/containerd.sock
timeout: 10
END

# These two are kubernetes/release's templates (cmd/krel/templates/latest/{kubelet,kubeadm}).
mkdir -p /etc/systemd/system/kubelet.service.d
cat > /etc/systemd/system/kubelet.service <<'END'
[Unit]
Description=kubelet: The Kubernetes Node Agent
Documentation=https://kubernetes.io/docs/
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=10

[Install]
WantedBy=multi-user.target
END
cat > /etc/systemd/system/kubelet.service.d/10-kubeadm.conf <<'END'
# Note: This dropin only works with kubeadm and kubelet v1.11+
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
# This is a file that "kubeadm init" and "kubeadm join" generates at runtime, populating the KUBELET_KUBEADM_ARGS variable dynamically
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
# This is a file that the user can use for overrides of the kubelet args as a last resort. Preferably, the user should use
# the .NodeRegistration.KubeletExtraArgs object in the configuration files instead. KUBELET_EXTRA_ARGS should be sourced from this file.
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
END
# Not in the official package: a crashed kubelet is back after one second instead of ten, for labs that kill it.
cat > /etc/systemd/system/kubelet.service.d/20-restart.conf <<'END'
[Service]
RestartSec=1
END
systemctl enable kubelet.service

# What kubeadm's preflight asks of a machine. In an embedded node the provider sees to both.
printf 'overlay\nbr_netfilter\n' > /etc/modules-load.d/kubernetes.conf
printf 'net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\n' > /etc/sysctl.d/90-kubernetes.conf

mkdir -p /etc/bash_completion.d
kubectl completion bash > /etc/bash_completion.d/kubectl
# root's shell on a node knows kubectl where there is an admin's kubeconfig, and completes words.
cat > /etc/profile.d/kubernetes.sh <<'END'
[ -r /etc/kubernetes/admin.conf ] && export KUBECONFIG=/etc/kubernetes/admin.conf
[ -n "${BASH_VERSION:-}" ] && [ -r /usr/share/bash-completion/bash_completion ] && . /usr/share/bash-completion/bash_completion
:
END
