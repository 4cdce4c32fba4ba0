"""What a key that may only look can run on a node: every line is tried on the real script, in this machine's own shell-less way."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import lab_utils.grading
from lab_utils.run import Result, run

LOOK = Path(lab_utils.grading.__file__).parent / "look.pl"


def ask(command: str) -> Result:
    if not shutil.which("perl"):
        pytest.skip("perl is not on this machine")
    return run(["perl", LOOK], env={"SSH_ORIGINAL_COMMAND": command}, check=False, timeout=30)


READING = [
    "ip -j -d link",
    "ip -br addr show",
    "ip route get 127.0.0.1",
    "ps aux",
    "ps -o etime,comm -p 1",
    "ps -ef",
    "ps -e -o pid,ppid,args --forest",
    "ps -eLf",
    "ps -o etime= -p 1",
    "ps -u root",
    "ps -aux",
    "ps -C perl -o pid=",
    "mount",
    "mount -t proc",
    "findmnt -t proc",
    "ps -eo pid=,ppid=,user:32=,args= -ww",
    "cat /proc/self/net/dev",
    "cat /etc/os-release | grep -c NAME",
    "grep -E '^(ID|NAME)=' /etc/os-release",
    "head -n 1 /etc/os-release",
    "echo a; echo b | wc -l",
    "test -x /opt/cni/bin/gone || echo none",
    "cat /proc/sys/net/ipv4/ip_forward && echo yes",
    "hostname 2>/dev/null",
    "sh -c 'hostname; uname -r'",
    "sudo -n sh -c 'ip -o link'",
    "timeout 5 ip -o link",
    "ls /proc/sys/net/ipv4 2>&1 | head -3",
    "base64 -- /etc/os-release",
    'echo "a b"\\ c',
    "true",
]


@pytest.mark.parametrize("command", READING)
def test_reading_commands_run(command: str) -> None:
    done = ask(command)
    assert (done.code, done.stderr) == (0, ""), done
    assert done.stdout or command == "true"


TOUCHING = [
    "ip link set lo down",
    "ip link add x type dummy",
    "ip l s lo down",
    "ip netns exec x ip link del y",
    "ip -batch /tmp/x",
    "ip -b /tmp/x",
    "ip -force link",
    "iptables -F",
    "iptables -t nat -A POSTROUTING -j DROP",
    "iptables -L -Z",
    "iptables-save -f /tmp/x",
    "iptables-save --modprobe=/tmp/x",
    "iptables-restore",
    "nft flush ruleset",
    "nft -f /tmp/x",
    "conntrack -F",
    "conntrack -L -D",
    "conntrack -D",
    "ss -K dst 1.1.1.1",
    "ss -D /tmp/x",
    "sysctl -w net.ipv4.ip_forward=1",
    "sysctl net.ipv4.ip_forward=1",
    "sysctl -p /tmp/x",
    "hostname evil",
    "date 01010000",
    "systemctl stop kubelet",
    "systemctl status --host=x kubelet",
    "journalctl --vacuum-size=1",
    "journalctl --rotate",
    "crictl rm -a",
    "crictl exec abc id",
    "crictl --runtime-endpoint unix:///x ps",
    "ctr tasks exec x",
    "nsenter -t 1 -a id",
    "nsenter -t 1 -m cat /etc/shadow",
    "nsenter -t 1 -n sh -c id",
    "timeout 5 sh -c id",
    "timeout 5 bash -c 'cat /etc/shadow'",
    "sudo -n sh -c 'cat /etc/shadow'",
    "sh -c 'sh -c \"cat /etc/shadow\"'",
    "sh /tmp/x",
    "bash",
    "cat /etc/shadow",
    "cat /etc/kubernetes/admin.conf",
    "cat /etc/kubernetes/pki/ca.key",
    "cat /etc/cni/net.d/calico-kubeconfig",
    "cat /root/.ssh/authorized_keys",
    "cat /proc/1/environ",
    "cat /proc/self/task/1/environ",
    "cat /proc/1/root/etc/shadow",
    "cat /proc/self/cwd/etc/shadow",
    "cat /proc/../etc/shadow",
    "cat /etc/../etc/shadow",
    "cat //etc//shadow",
    "cat ../etc/shadow",
    "cat /proc/kcore",
    "grep -r root /etc",
    "grep -f /etc/shadow /etc/os-release",
    "grep -e x /etc/shadow",
    "tail -f /etc/shadow",
    "head --lines=1 /etc/shadow",
    "wc --files0-from=/etc/shadow",
    "base64 /etc/shadow",
    "getent shadow",
    "ls /root",
    "ls /etc/kubernetes/pki",
    "find / -exec id",
    "sort -o /tmp/x",
    "sort --compress-program=id",
    "uniq /etc/shadow",
    "jq . /etc/shadow",
    "tcpdump -c 1 -w /tmp/x",
    "tcpdump -c 1 -z id",
    "curl -s file:///etc/shadow",
    "curl -d @/etc/shadow http://127.0.0.1",
    "curl -o /tmp/x http://127.0.0.1",
    "curl -H @/etc/shadow http://127.0.0.1",
    "curl -w %output{/tmp/x} http://127.0.0.1",
    "curl -K /tmp/x",
    "curl -X DELETE http://127.0.0.1",
    "curl FILE:///etc/shadow",
    "curl fi[l-l]e:///etc/shadow",
    "curl 'http://[::1]/[1-9]'",
    "nft list -i",
    "nft list ruleset -f rules",
    "kubelet",
    "kubelet version",
    "containerd",
    "containerd --version config",
    "mount -t tmpfs x y",
    "mount -t tmpfs x",
    "findmnt -F /etc/kubernetes/admin.conf",
    "findmnt --tab-file /etc/shadow",
    "timeout 100000 sleep 9",
    "timeout 1h sleep 9",
    "ps auxe",
    "ps eww 1",
    "ps -ww e -p 1",
    "ps -e e",
    "ps --forest e",
    "ps -auxe",
    "ps -axue",
    "ps -o environ",
    "ps -eo args,environ",
    "ps --format=environ",
    "ls -R /",
    "tee /tmp/x",
    "dd if=/dev/zero of=/dev/vda",
    "rm -rf /",
    "python3 -c 1",
    "perl -e 1",
    "kubectl get secrets -A",
    "env",
    "awk 'BEGIN{system(\"id\")}'",
    "sed -i s/a/b/ /etc/hosts",
    "xargs id",
    "echo $(id)",
    "echo `id`",
    'echo "$(id)"',
    'echo "$HOME"',
    "echo a > /tmp/x",
    "echo a >> /tmp/x",
    "cat < /etc/shadow",
    "true & id",
    "cat /etc/shado?",
    "ls /etc/*",
    "(id)",
    "{ id; }",
    "id\nrm -rf /tmp/x",
    "id; rm -rf /tmp/x",
    "id && rm -rf /tmp/x",
    "id | sh",
    "'",
    '"',
    "\\",
    "",
    "   ",
    "/tmp/ip link",
    "./ip link",
    "a" * 10_000,
]


@pytest.mark.parametrize("command", TOUCHING)
def test_everything_else_is_refused_before_anything_runs(command: str) -> None:
    done = ask(command)
    assert done.code == 126, done
    assert done.stdout == ""
    assert done.stderr.startswith("this key may only look: ")


def test_the_environment_of_the_client_is_not_used(tmp_path: Path) -> None:
    fake = tmp_path / "hostname"
    fake.write_text("#!/bin/sh\necho fake")
    fake.chmod(0o755)
    done = run(["perl", LOOK], env={"SSH_ORIGINAL_COMMAND": "hostname", "PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=False)
    assert done.stdout.strip() != "fake"
