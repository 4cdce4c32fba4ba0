#!/bin/bash
# What one machine among the others needs and no image can hold: who it is, where the others are, and who may log in.
#
#   KIO_NODE            its name
#   KIO_HOSTS           "address name;address name;…" of all nodes
#   KIO_KUBERNETES      the version of Kubernetes that must be on it
#   KIO_ARCHITECTURE    the host's architecture, as Debian calls it
#   KIO_AUTHORIZED_KEY  the public key of `lab`, for root
#   KIO_BARE            yes where the learner runs kubeadm
set -euo pipefail
fail() { echo "kio: $*" >&2; exit 1; }

own=$(dpkg --print-architecture)
[ "$own" = "$KIO_ARCHITECTURE" ] || fail "the box is for $own, and this host is $KIO_ARCHITECTURE: give a box for $KIO_ARCHITECTURE in the settings"
if [ -n "$KIO_KUBERNETES" ]; then
    found=$(kubeadm version -o short 2>/dev/null) || fail "there is no kubeadm on the box, though the settings call it packaged"
    [ "$found" = "$KIO_KUBERNETES" ] || fail "the box holds Kubernetes $found, and the course's is $KIO_KUBERNETES: package a new box"
fi

# Two machines of one packaged box must not have one machine-id, by which journals and DHCP servers tell machines apart. A box remembers
# on which machine it was made; product_uuid is each machine's own.
uuid=$(cat /sys/class/dmi/id/product_uuid 2>/dev/null || true)
made_on=$(cat /usr/local/share/kubernetes-inside-out/machine 2>/dev/null || true)
if [ -n "$made_on" ] && [ "$made_on" != "$uuid" ]; then
    rm -f /etc/machine-id /var/lib/dbus/machine-id
    systemd-machine-id-setup
    ln -s /etc/machine-id /var/lib/dbus/machine-id
    systemctl restart systemd-journald
fi
mkdir -p /usr/local/share/kubernetes-inside-out
echo "$uuid" > /usr/local/share/kubernetes-inside-out/machine

# Vagrant lets a machine's own name mean 127.0.1.1 or 127.0.2.1, which no other node can reach.
sed -i -E '/^127\.0\.[12]\.1[[:space:]]/d; /# kio$/d' /etc/hosts
tr ';' '\n' <<<"$KIO_HOSTS" | sed 's/$/ # kio/' >> /etc/hosts

# kubelet refuses to run with swap unless told otherwise.
swapoff -a
sed -i -E '/^[^#].*\sswap\s/s/^/# /' /etc/fstab

# systemd, containerd, kubelet and every `kubectl logs -f` watch files; Debian's 128 watchers a user are soon used up.
printf 'fs.inotify.max_user_instances = 8192\nfs.inotify.max_user_watches = 524288\n' > /etc/sysctl.d/91-machine.conf
modprobe -a overlay br_netfilter
sysctl --system >/dev/null

install -d -m 700 /root/.ssh
if [ -n "$KIO_AUTHORIZED_KEY" ]; then
    grep -qxF "$KIO_AUTHORIZED_KEY" /root/.ssh/authorized_keys 2>/dev/null || echo "$KIO_AUTHORIZED_KEY" >> /root/.ssh/authorized_keys
    chmod 600 /root/.ssh/authorized_keys
fi
# `lab` asks many things at once over one connection; sshd's limits are 10.
printf 'MaxSessions 200\nMaxStartups 200\n' > /etc/ssh/sshd_config.d/10-lab.conf
# Two machines of one packaged box must not have one host key. No RSA key: making one takes a second, and where a processor is
# emulated a minute.
rm -f /etc/ssh/ssh_host_*
for kind in ed25519 ecdsa; do ssh-keygen -q -t "$kind" -N '' -f "/etc/ssh/ssh_host_${kind}_key"; done
systemctl restart ssh

# Until kubeadm has given kubelet a configuration, it would fail and start again every second. On bare nodes it does as the official
# packages have it.
condition=/etc/systemd/system/kubelet.service.d/30-when-configured.conf
rm -f "$condition"
[ "$KIO_BARE" = yes ] || printf '[Unit]\nConditionPathExists=/var/lib/kubelet/config.yaml\n' > "$condition"
systemctl daemon-reload
[ -n "$KIO_BARE" ] || [ -e /var/lib/kubelet/config.yaml ] || systemctl stop kubelet
systemctl is-active --quiet containerd || systemctl start containerd
echo "kio-host-key: $(cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub)"
