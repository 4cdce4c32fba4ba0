#!/bin/sh
# Boots one node: namespaces over an overlay of the node root, and systemd as process 1 in them.
#
# Called by lab_utils/embedded/node.py with everything in the environment:
#   KIO_NODE     its name, which becomes the hostname
#   KIO_DIR      its folder: upper/ work/ root/ containerd/
#   KIO_LOWER    the shared Debian root
#   KIO_NETNS    the network namespace, made beforehand
#   KIO_CGROUPS  cgroup.procs files to enter
#   KIO_DIVIDE   on cgroup v2: the group that is divided, into launcher/ for what stays outside and node/ for the node
#   KIO_UUID     what the machine's product_uuid shall be
#   KIO_FIRST    of a guarded node (guard.py): the id on this machine of the node's root; empty otherwise
#   KIO_UNSHARE  the program that makes namespaces: lab_utils/unshare.py
#   KIO_PYTHON   what runs  KIO_GUARD, which is guard.py;  KIO_PROCESSES, KIO_BYTES  what a guarded node may have at most
# The network namespace is entered with nsenter, not `ip netns exec`: that one mounts a new /sys and hides the cgroups.
set -eu

if [ "${1:-}" = "" ]; then
    if [ -n "$KIO_DIVIDE" ]; then
        # A group hands controllers down only when no process is in it, so we go to a leaf. Not to the node's own: its systemd
        # could neither see this process, which is outside of its pid namespace, nor move it away to divide its tree further.
        mkdir -p "$KIO_DIVIDE/launcher" "$KIO_DIVIDE/node"
        echo 0 > "$KIO_DIVIDE/launcher/cgroup.procs"
        for controller in $(cat "$KIO_DIVIDE/cgroup.controllers"); do
            echo "+$controller" > "$KIO_DIVIDE/cgroup.subtree_control" || true
        done
        if [ -n "$KIO_FIRST" ]; then
            # The node divides its own group further; the limits of the group above it stay this machine's.
            for file in "" /cgroup.procs /cgroup.subtree_control /cgroup.threads; do chown "$KIO_FIRST" "$KIO_DIVIDE/node$file"; done
            chown "$KIO_FIRST" "$KIO_DIVIDE/cgroup.procs"
            echo "$KIO_PROCESSES" > "$KIO_DIVIDE/pids.max"
            echo "$KIO_BYTES" > "$KIO_DIVIDE/memory.max"
        fi
    else
        for file in $KIO_CGROUPS; do echo 0 > "$file"; done
    fi
    if [ -n "$KIO_FIRST" ]; then
        KIO_SELF=$(cat "$0") # where this file lies, the node's root may not be able to read
        export KIO_SELF
        exec "$KIO_UNSHARE" --mount --propagation private "$0" prepare
    fi
    # --kill-child: when this process is killed, so is the node's process 1 and with it the whole pid namespace.
    exec nsenter --net="/run/netns/$KIO_NETNS" \
        "$KIO_UNSHARE" --mount --pid --uts --ipc --fork --kill-child --propagation private "$0" enter
fi

R=$KIO_DIR/root
make_root() { # LOWER: the node's root, and its images
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$KIO_DIR/upper,workdir=$KIO_DIR/work" "$R"
    mkdir -p "$R/var/lib/containerd" "$R/.old"
    # containerd's own overlays cannot lie on an overlay; this folder is on the host's file system.
    mount --bind "$KIO_DIR/containerd" "$R/var/lib/containerd"
}
make_devices() { # the mount options of the file system that holds them
    mount -t tmpfs -o "mode=755$1" tmpfs "$R/dev"
    for device in null zero full random urandom tty $2 net/tun fuse; do
        [ -e "/dev/$device" ] || continue
        mkdir -p "$(dirname "$R/dev/$device")"
        cp -a "/dev/$device" "$R/dev/$device"
    done
    [ -e "$R/dev/net/tun" ] || { mkdir -p "$R/dev/net" && mknod -m 666 "$R/dev/net/tun" c 10 200; }
}

if [ "$1" = prepare ]; then
    # Root of the machine still, in a mount namespace of its own: what only that root can make. The rest is made inside.
    "$KIO_PYTHON" -I -S -B "$KIO_GUARD" idmap "/run/netns/$KIO_NETNS" "$KIO_LOWER" "$KIO_DIR/lower"
    make_root "$KIO_DIR/lower"
    make_devices ",uid=$KIO_FIRST,gid=$KIO_FIRST" ""
    chown -R "$KIO_FIRST:$KIO_FIRST" "$R/dev"
    exec "$KIO_PYTHON" -I -S -B "$KIO_GUARD" enter "/run/netns/$KIO_NETNS" \
        "$KIO_UNSHARE" --mount --pid --uts --ipc --fork --kill-child --propagation private /bin/sh -c "$KIO_SELF" "$0" enter
fi
if [ "$1" = enter ]; then
    # Now the node's process 1: 0 means "whoever writes", whatever its number. The cgroup namespace begins where we then are.
    for file in $KIO_CGROUPS; do echo 0 > "$file"; done
    [ -z "$KIO_FIRST" ] || exec "$KIO_UNSHARE" --cgroup /bin/sh -c "$KIO_SELF" "$0" inside
    exec "$KIO_UNSHARE" --cgroup "$0" inside
fi

if [ -n "$KIO_FIRST" ]; then
    mount --rbind "$R" "$R" # pivot_root(2) refuses a root that came locked from a namespace above
else
    make_root "$KIO_LOWER"
fi
mount -t proc proc "$R/proc"
# The host's sysctls stay as they are: /proc/sys is read-only but for the node's own network. kubelet insists on
# six values (pkg/kubelet/cm/container_manager_linux.go, setupKernelTunables) and would set them for the whole
# machine; it finds them fulfilled in files laid over the real ones.
mount --bind "$R/proc/sys" "$R/proc/sys"
mount --bind "$R/proc/sys/net" "$R/proc/sys/net"
mount -o remount,bind,ro "$R/proc/sys"
mount -t tmpfs -o mode=755 tmpfs "$R/run"
mkdir -p "$R/run/kio"
while read -r name value; do
    [ -e "$R/proc/sys/$name" ] || continue
    file=$R/run/kio/$(echo "$name" | tr / .)
    echo "$value" > "$file"
    mount --bind "$file" "$R/proc/sys/$name"
done <<END
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END

mount -t sysfs sysfs "$R/sys"
if [ -n "$KIO_FIRST" ]; then
    # `ip -n` and `ip netns exec` take /sys away and mount another. In a user namespace the kernel allows that only where
    # a whole sysfs is still to be seen: mount_too_revealing() in fs/namespace.c.
    mkdir "$R/run/kio/sys"
    mount -t sysfs sysfs "$R/run/kio/sys"
fi
if [ -e "$R/sys/class/dmi/id/product_uuid" ]; then
    echo "$KIO_UUID" > "$R/run/kio/product_uuid"
    mount --bind "$R/run/kio/product_uuid" "$R/sys/class/dmi/id/product_uuid"
fi
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 "$R/sys/fs/cgroup"
else
    mount -t tmpfs -o mode=755 tmpfs "$R/sys/fs/cgroup"
    for controller in cpu cpuacct cpuset memory devices freezer blkio pids; do
        [ -d "/sys/fs/cgroup/$controller" ] || continue
        mkdir "$R/sys/fs/cgroup/$controller"
        mount -t cgroup -o "$controller" cgroup "$R/sys/fs/cgroup/$controller" 2>/dev/null || {
            # Controllers mounted together (cpu,cpuacct) must be mounted together here too.
            options=$(awk -v m="$(readlink -f "/sys/fs/cgroup/$controller")" '$2 == m && $3 == "cgroup" {print $4}' /proc/mounts |
                tr , '\n' | grep -xE 'cpu|cpuacct|net_cls|net_prio' | paste -sd,)
            mount -t cgroup -o "$options" cgroup "$R/sys/fs/cgroup/$controller"
        }
    done
    mkdir "$R/sys/fs/cgroup/systemd" && mount -t cgroup -o none,name=systemd cgroup "$R/sys/fs/cgroup/systemd"
    if [ -d /sys/fs/cgroup/unified ]; then
        mkdir "$R/sys/fs/cgroup/unified" && mount -t cgroup2 cgroup2 "$R/sys/fs/cgroup/unified"
    fi
    # kubelet's cgroupRoot has to exist in every tree before it starts.
    for tree in "$R"/sys/fs/cgroup/*; do mkdir -p "$tree/kubelet"; done
fi

if [ -n "$KIO_FIRST" ]; then
    ln -s null "$R/dev/kmsg" # the kernel's log is the machine's; kubelet wants to read one
else
    make_devices "" "kmsg loop-control"
fi
mkdir -p "$R/dev/pts" "$R/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$R/dev/pts"
ln -s pts/ptmx "$R/dev/ptmx"
ln -s /proc/self/fd "$R/dev/fd"
ln -s /proc/self/fd/0 "$R/dev/stdin"
ln -s /proc/self/fd/1 "$R/dev/stdout"
ln -s /proc/self/fd/2 "$R/dev/stderr"
mount -t tmpfs -o mode=1777 tmpfs "$R/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$R/tmp"

hostname "$KIO_NODE"
cd "$R"
pivot_root . .old
umount -l /.old
rmdir /.old
# Only now: pivot_root refuses a root that is shared.
mount --make-rshared /
exec env -i container=lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /sbin/init --log-target=console --show-status=0 </dev/null
