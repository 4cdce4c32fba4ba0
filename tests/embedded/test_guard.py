"""Root of a guarded node tries to get out, in the ways that are listed in lab_utils/embedded/guard.py."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from lab_utils.cluster import Cluster, Node
from lab_utils.embedded.guard import FIRST, IDS, first_id
from lab_utils.embedded.host import closed_to_others
from lab_utils.errors import HostLacks
from lab_utils.grading.bare import refuse_without_walls
from lab_utils.progress import Progress
from lab_utils.providers import ClusterSpec, provider


def test_no_two_nodes_of_a_machine_have_an_id_in_common() -> None:
    ranges = sorted(first_id(cluster, node) for cluster in range(1000) for node in range(6))
    assert all(later - earlier >= IDS for earlier, later in pairwise(ranges))
    assert ranges[0] == FIRST
    assert ranges[-1] + IDS < 2**32 - 2, "the last two ids mean nobody to the kernel"


def test_a_folder_that_only_its_owner_may_pass_is_named() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder, state = Path(made), Path(made, "mine", "state")
        state.mkdir(parents=True)
        assert closed_to_others(state) == folder, "mkdtemp(3) makes it so"
        folder.chmod(0o711)
        assert closed_to_others(state) is None


@pytest.fixture(scope="module")
def guarded(progress: Progress) -> Iterator[Cluster]:
    yield from made(ClusterSpec(f"guard-{os.getpid()}", workers=0, bare=True, guarded=True), progress)


def made(spec: ClusterSpec, progress: Progress) -> Iterator[Cluster]:
    embedded = provider("embedded")
    usable = embedded.usability()
    if not usable.usable or os.geteuid() != 0:
        pytest.skip(f"no embedded nodes here: {usable.why or 'this is not root'}")
    try:
        cluster = embedded.up(spec, progress)
        yield cluster
        cluster.close()
    finally:
        embedded.down(spec.name, progress)


@pytest.fixture
def node(guarded: Cluster) -> Node:
    return guarded.nodes[0]


SHOCKER = """
use Fcntl;
my $number = `uname -m` =~ /x86_64/ ? 304 : 265;    # open_by_handle_at(2)
sysopen(my $mount, "/var/lib/containerd", O_RDONLY) or die;
my $root = pack("L l L L", 8, 1, 2, 0);             # inode 2: the root of an ext4, whatever of it is mounted here
my $got = syscall($number, fileno($mount), $root, O_RDONLY | 0200000);
print $got < 0 ? "refused: $!\\n" : "open\\n";
"""
ATTACKS = {
    "make the host's disk a device of its own": "mknod /tmp/disk b 254 0",
    "make the machine's memory a device of its own": "mknod /tmp/mem c 1 1",
    "name a program that the kernel runs": "mkdir -p /tmp/p; mount -t proc proc /tmp/p; echo '|/tmp/x' > /tmp/p/sys/kernel/core_pattern",
    "name another one": "mkdir -p /tmp/p; mount -t proc proc /tmp/p; echo /tmp/x > /tmp/p/sys/kernel/modprobe",
    "make /proc/sys writable": "mount -o remount,bind,rw /proc/sys; echo 1 > /proc/sys/kernel/panic; echo 1 > /proc/sys/vm/drop_caches",
    "press a system request key": "mkdir -p /tmp/p; mount -t proc proc /tmp/p; echo h > /tmp/p/sysrq-trigger",
    "set everybody's clock": "date -s @$(date +%s)",
    "load a module": "head -c 4096 /dev/zero > /tmp/m.ko; insmod /tmp/m.ko",
    "mount debugfs": "mkdir -p /tmp/d; mount -t debugfs none /tmp/d",
    "mount tracefs": "mkdir -p /tmp/d; mount -t tracefs none /tmp/d",
    "mount a devtmpfs and read a disk there": "mkdir -p /tmp/d; mount -t devtmpfs none /tmp/d; head -c 1 /tmp/d/vda /tmp/d/sda",
    "allow itself more processes": (
        "for f in /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max; do test -e $f && { echo max > $f; exit; }; done; exit 9"
    ),
    "name a release agent": (
        "mkdir -p /tmp/c; mount -t cgroup -o none,name=mine none /tmp/c && echo /tmp/x > /tmp/c/release_agent"
        " || echo /tmp/x > /sys/fs/cgroup/pids/release_agent"
    ),
    "write into an image that other clusters share": (
        'f=$(find /var/lib/containerd -type f -links +1 -size +100k -print -quit); test -n "$f" || exit 0; chmod u+w $f; echo x >> $f'
    ),
    "write to the kernel's log": "echo hello > /dev/kmsg && test ! -L /dev/kmsg",
}


@pytest.mark.cluster
@pytest.mark.parametrize("what", ATTACKS)
def test_root_of_a_guarded_node_cannot(what: str, node: Node) -> None:
    done = node.run(ATTACKS[what])
    assert not done.ok, done.stdout
    node.run("umount /tmp/p /tmp/d /tmp/c 2>/dev/null; rm -f /tmp/disk /tmp/mem")


@pytest.mark.cluster
def test_a_handle_opens_nothing_of_the_hosts_disk(node: Node) -> None:
    node.put(SHOCKER.encode(), "/tmp/shocker.pl")
    said = node.run("perl /tmp/shocker.pl")
    assert said.stdout.startswith("refused"), said.stdout + said.stderr


@pytest.mark.cluster
def test_processes_and_files_of_the_host_are_not_to_be_seen(node: Node, tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("secret")
    word = f"kio-{os.urandom(6).hex()}"
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", word])
    try:
        assert word not in node.run("ps -e -o args -ww").stdout
        assert node.run(f"cat {tmp_path}/answers /proc/1/root{tmp_path}/answers").stdout == ""
    finally:
        child.kill()
        child.wait()


@pytest.mark.cluster
def test_its_root_is_nobody_on_this_machine(guarded: Cluster, node: Node) -> None:
    assert node.run("id -u").stdout.strip() == "0"
    inside, outside, count = map(int, node.run("cat /proc/self/uid_map").stdout.split())
    assert (inside, count) == (0, IDS)
    assert outside >= FIRST
    node.run("echo hello > /root/file; chmod u+s /root/file", check=True)
    upper = Path("/var/lib/kubernetes-inside-out") if not os.environ.get("LAB_STATE") else Path(os.environ["LAB_STATE"]) / "root"
    assert (upper / guarded.name / "nodes/cp/upper/root/file").stat().st_uid == outside
    refuse_without_walls(guarded)


@pytest.mark.cluster
def test_it_is_a_machine_all_the_same(node: Node) -> None:
    """What a learner is asked to do there, works."""
    node.run("sysctl -w net.ipv4.ip_forward=1; systemctl restart containerd; crictl version", check=True)
    node.run(
        "ip link add br7 type bridge; ip link add v7 type vxlan id 7 dstport 4789 dev eth0; ip link del br7; ip link del v7", check=True
    )
    node.run("iptables -A OUTPUT -d 192.0.2.1 -j DROP; iptables -D OUTPUT -d 192.0.2.1 -j DROP", check=True)
    node.run("ip netns add n7; ip -n n7 link set lo up && ip netns exec n7 ip addr && ip netns del n7", check=True)
    assert node.run("crictl images -q", check=True).stdout.split(), "the images are there"


@pytest.mark.cluster
def test_reset_takes_away_whatever_was_done(guarded: Cluster, progress: Progress) -> None:
    root = guarded.nodes[0]
    deep = "mkdir -p /root/$(printf 'd/%.0s' $(seq 1500))"
    root.run(f"touch /etc/changed /root/.ssh/more; ip link add left type dummy; iptables -A INPUT -s 192.0.2.1 -j DROP; {deep}", check=True)
    root.run("rm -f /etc/passwd; systemctl mask ssh; : > /root/.ssh/authorized_keys", check=True)
    again = provider("embedded").reset(guarded.name, progress).nodes[0]
    assert again.run("ls /etc/passwd /root", check=True).stdout.split() == ["/etc/passwd", "/root:"]
    assert not again.run("test -e /etc/changed").ok
    assert not again.run("ip link show left").ok
    assert "192.0.2.1" not in again.run("iptables-save").stdout
    again.close()
    root.close()


@pytest.mark.cluster
def test_who_grades_is_refused_where_root_would_be_root_of_this_machine(progress: Progress) -> None:
    for cluster in made(ClusterSpec(f"open-{os.getpid()}", workers=0, bare=True), progress):
        with pytest.raises(HostLacks, match="would be root of this machine"):
            refuse_without_walls(cluster)
