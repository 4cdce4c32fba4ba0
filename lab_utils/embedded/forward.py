"""Firewalls of the host that drop what passes through it, and the way through them for the link of one cluster.

An accepting rule of ours in a chain of our own would not do: a packet has to pass every base chain of the hook, and one that drops it has
the last word (nft(8), VERDICT STATEMENTS). So the rules go where it is dropped, at the head, each with the link's name as its comment:

    iptables    Docker and ufw set the policy of FORWARD to DROP
    nftables    a chain of somebody's own with that policy, as in the example that Arch installs as /etc/nftables.conf
    firewalld   knows interfaces by zones, and gives its tables to nobody else: it is asked to trust the link
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab_utils.errors import CommandFailed
from lab_utils.run import run

LEGACY = Path("/proc/net/ip_tables_names")


@dataclass(frozen=True)
class Chain:
    family: str
    table: str
    name: str
    drops: bool

    @property
    def of_iptables(self) -> bool:
        return (self.family, self.table, self.name) == ("ip", "filter", "FORWARD")

    @property
    def of_firewalld(self) -> bool:
        return (self.family, self.table) == ("inet", "firewalld")


def base_chains(listing: str) -> list[Chain]:
    """Of `nft -j list chains`, those that IPv4 packets on their way through the host have to pass. Pure."""
    chains = [item["chain"] for item in json.loads(listing)["nftables"] if "chain" in item]
    return [
        Chain(chain["family"], chain["table"], chain["name"], chain.get("policy") == "drop")
        for chain in chains
        if chain.get("hook") == "forward" and chain["family"] in ("ip", "inet")
    ]


def rules_called(comment: str, listing: str) -> list[int]:
    """Of `nft -j -a list chain …`, the handles of the rules with this comment. Pure."""
    rules = [item["rule"] for item in json.loads(listing)["nftables"] if "rule" in item]
    return [rule["handle"] for rule in rules if rule.get("comment") == comment]


def is_closed() -> bool:
    """Does the host drop what it forwards? Only looks: asking iptables itself could create its tables."""
    chains = _chains()
    return any(chain.drops or chain.of_firewalld for chain in chains) or _legacy_drops()


def let_through(link: str) -> None:
    chains = _chains()
    for program in _iptables(chains):
        for rule in _iptables_rules(link):
            if not run([program, "-w", "-C", *rule], check=False).ok:
                run([program, "-w", "-I", *rule])
    for chain in _foreign(chains):
        if chain.drops and not _ours_in(chain, link):
            for direction in ("iifname", "oifname"):
                words = [direction, f'"{link}"', "accept", "comment", f'"{link}"']
                run(["nft", "insert", "rule", chain.family, chain.table, chain.name, *words])
    if any(chain.of_firewalld for chain in chains):
        _ask_firewalld("--add-interface", link)


def take_back(link: str) -> None:
    chains = _chains()
    for program in _iptables(chains):
        for rule in _iptables_rules(link):
            while run([program, "-w", "-D", *rule], check=False).ok:
                pass
    for chain in _foreign(chains):
        for handle in _ours_in(chain, link):
            run(["nft", "delete", "rule", chain.family, chain.table, chain.name, "handle", str(handle)], check=False)
    if any(chain.of_firewalld for chain in chains):
        _ask_firewalld("--remove-interface", link)


def _chains() -> list[Chain]:
    try:
        return base_chains(run(["nft", "-j", "list", "chains"]).stdout)
    except CommandFailed:
        return []


def _foreign(chains: Iterable[Chain]) -> list[Chain]:
    return [chain for chain in chains if not chain.of_iptables and not chain.of_firewalld]


def _ours_in(chain: Chain, link: str) -> list[int]:
    said = run(["nft", "-j", "-a", "list", "chain", chain.family, chain.table, chain.name], check=False)
    return rules_called(link, said.stdout) if said.ok else []


def _iptables(chains: Iterable[Chain]) -> list[str]:
    """The iptables programs whose filter tables are in use here. There are two, which do not know of each other's rules, and asking the
    one that is not in use would make its table."""
    used = {"iptables-nft": any(chain.of_iptables for chain in chains), "iptables-legacy": _legacy()}
    return [name if shutil.which(name) else "iptables" for name, in_use in used.items() if in_use]


def _iptables_rules(link: str) -> list[list[str]]:
    return [["FORWARD", direction, link, "-m", "comment", "--comment", link, "-j", "ACCEPT"] for direction in ("-i", "-o")]


def _legacy() -> bool:
    """Has the older iptables, which nftables does not see, a filter table here?"""
    return LEGACY.exists() and "filter" in LEGACY.read_text().split()


def _legacy_drops() -> bool:
    return any("-P FORWARD DROP" in run([program, "-S", "FORWARD"], check=False).stdout for program in _iptables([]))


def _ask_firewalld(what: str, link: str) -> None:
    """For as long as it runs (without --permanent): after its next start, `lab up` asks again."""
    if program := shutil.which("firewall-cmd"):
        run([program, "--quiet", "--zone=trusted", f"{what}={link}"], check=False)
