"""The way through a host's firewall: real rules and real packets, in namespaces of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from lab_utils.embedded.forward import Chain, base_chains, rules_called

REFUSED = """
import errno, socket, sys
asking = socket.socket()
asking.settimeout(2)
sys.exit(asking.connect_ex(("10.99.2.2", 9)) != errno.ECONNREFUSED)
"""

# A host between a cluster's link and the outside. Its mounts are private, and all of it goes with the process.
WORLD = """
set -eu
mount -t tmpfs tmpfs /run
echo 1 > /proc/sys/net/ipv4/ip_forward
for side in "kio7 inside 1" "out0 outside 2"; do
    set -- $side
    ip netns add $2
    ip link add $1 type veth peer name eth0 netns $2
    ip addr add 10.99.$3.1/24 dev $1
    ip link set $1 up
    ip -n $2 addr add 10.99.$3.2/24 dev eth0
    ip -n $2 link set eth0 up
    ip -n $2 route add default via 10.99.$3.1
done
# Nobody listens there, and that answer, too, has gone both ways.
passes() { ip netns exec inside "$PYTHON" -c "$REFUSED"; }
lab() { "$PYTHON" -c "from lab_utils.embedded import forward; $1"; }
passes
lab 'assert not forward.is_closed()'
lab 'forward.take_back("kio7")' # where there is nothing to take back, nothing is made either
[ -z "$(nft list ruleset)" ]
"""

CLOSED = """
! passes
all() { nft list ruleset; ! command -v iptables-legacy-save > /dev/null || iptables-legacy-save | sed 's/^#.*//; s/ \\[.*//'; }
all > /run/before
lab 'assert forward.is_closed()'
lab 'forward.let_through("kio7")'
passes
all > /run/once
lab 'forward.let_through("kio7")'
all > /run/twice
cmp /run/once /run/twice
lab 'forward.take_back("kio7")'
all > /run/after
diff /run/before /run/after
! passes
"""

FIREWALLS = {
    "Docker, by nftables' iptables": "iptables-nft -P FORWARD DROP",
    "Docker, by the older iptables": "iptables-legacy -P FORWARD DROP",
    "a table of somebody's own": "nft add table inet filter; nft add chain inet filter forward "
    "'{ type filter hook forward priority filter; policy drop; }'; nft add rule inet filter forward ct state established accept",
    "two at once": "iptables-nft -P FORWARD DROP; nft add table ip mine; nft add chain ip mine f "
    "'{ type filter hook forward priority 10; policy drop; }'",
}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes network namespaces")
@pytest.mark.parametrize("firewall", FIREWALLS.values(), ids=FIREWALLS)
def test_packets_pass_and_the_firewall_is_as_it_was_afterwards(firewall: str) -> None:
    if not shutil.which(program := firewall.split()[0]):
        pytest.skip(f"there is no {program} here")
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", WORLD + firewall + CLOSED],
        env={**os.environ, "PYTHON": sys.executable, "REFUSED": REFUSED},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_chains_that_packets_pass_on_their_way_through_are_found() -> None:
    def chain(**values: str) -> dict[str, dict[str, str]]:
        return {"chain": {"family": "inet", "table": "t", "name": "c", **values}}

    listing = [
        {"metainfo": {"version": "1.0.6"}},
        chain(hook="input", policy="drop"),
        chain(name="not a base chain"),
        chain(family="ip6", hook="forward", policy="drop"),
        chain(family="ip", table="filter", name="FORWARD", hook="forward", policy="accept"),
        chain(table="firewalld", name="filter_FORWARD", hook="forward", policy="accept"),
        chain(hook="forward", policy="drop"),
    ]
    docker, firewalld, own = base_chains(json.dumps({"nftables": listing}))
    assert docker == Chain("ip", "filter", "FORWARD", drops=False) and docker.of_iptables
    assert firewalld.of_firewalld and not firewalld.drops
    assert own == Chain("inet", "t", "c", drops=True)


def test_rules_are_known_by_their_comment() -> None:
    rules = [{"rule": {"handle": 4}}, {"rule": {"handle": 5, "comment": "kio7"}}, {"rule": {"handle": 6, "comment": "kio70"}}]
    assert rules_called("kio7", json.dumps({"nftables": rules})) == [5]
