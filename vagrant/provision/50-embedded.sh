#!/bin/bash
# Only for an embedded node, which is a set of namespaces and no machine: puts aside what would wait for hardware,
# set the host's clock, sysctls or kernel modules, or offer logins on terminals that do not exist.
set -euo pipefail
[ "${KIO_EMBEDDED:-}" = yes ] || exit 0

systemctl mask \
    systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service \
    systemd-modules-load.service systemd-sysctl.service systemd-sysusers.service systemd-firstboot.service \
    systemd-logind.service systemd-timesyncd.service systemd-hwdb-update.service systemd-pstore.service \
    systemd-random-seed.service systemd-remount-fs.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
    systemd-networkd.service systemd-networkd.socket systemd-networkd-wait-online.service systemd-resolved.service \
    systemd-binfmt.service proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount systemd-boot-update.service \
    console-getty.service container-getty@.service getty@.service getty.target getty-static.service serial-getty@.service \
    sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount \
    dev-hugepages.mount dev-mqueue.mount kmod-static-nodes.service modprobe@.service \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    systemd-tmpfiles-clean.timer ldconfig.service >/dev/null 2>&1
systemctl set-default multi-user.target >/dev/null 2>&1

# The journal in memory: a node is thrown away, and its root is shared.
mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=64M\nRateLimitIntervalSec=0\n' > /etc/systemd/journald.conf.d/kio.conf

# What makes a machine itself is given to each node when it boots.
rm -f /etc/ssh/ssh_host_* /etc/hostname /var/lib/dbus/machine-id
: > /etc/machine-id
