"""Reading nftables rules: `nft -j list ruleset` in, objects out, which `lab_utils.trace.trace` takes.

    from lab_utils import nft
    from lab_utils.trace import Packet, trace

    trace(nft.parse(text), Packet("10.244.1.7", "10.96.0.10", 53, protocol="udp"), local_addresses=["192.168.56.11"], origin="pod")

This covers what kube-proxy's nftables mode writes (verdict maps, numgen, concatenations, fib, dynamic sets for session affinity), what
iptables-nft leaves in `nft list`, and what a student would write. An unknown statement is kept and makes a trace undecided.
"""

from __future__ import annotations

import json
from typing import Any

from lab_utils.errors import ParseError
from lab_utils.nft.ruleset import HOOKS, NftChain, NftRule, NftRuleset, NftTable

__all__ = ["NftChain", "NftRule", "NftRuleset", "NftTable", "parse"]


def parse(text: str | bytes) -> NftRuleset:
    """Read the JSON that `nft -j list ruleset` prints. What cannot be right raises `ParseError`."""
    try:
        read = json.loads(text)
    except UnicodeDecodeError:
        raise ParseError("this is not UTF-8 text") from None
    except RecursionError:
        raise ParseError("the JSON is nested too deep for a ruleset") from None
    except ValueError as error:
        line = getattr(error, "lineno", 0)
        raise ParseError(f"this is not JSON: {getattr(error, 'msg', error)}", line, "`nft -j list ruleset` prints it") from None
    objects = read.get("nftables") if isinstance(read, dict) else None
    if not isinstance(objects, list):
        raise ParseError('this JSON is no ruleset: it has no list "nftables"', 0, "`nft -j list ruleset` prints one")
    tables: dict[tuple[str, str], NftTable] = {}
    for place, each in enumerate(objects):
        try:
            _one(each, tables)
        except ParseError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ParseError(f"object {place} of the ruleset is not understood ({type(error).__name__}: {error})") from None
    for table in tables.values():
        for chain in table.chains.values():
            _check_jumps(chain)
    return NftRuleset(list(tables.values()))


def _one(each: Any, tables: dict[tuple[str, str], NftTable]) -> None:
    ((kind, said),) = each.items()
    if kind == "metainfo":
        return
    if kind == "table":
        tables.setdefault((said["family"], said["name"]), NftTable(said["family"], said["name"]))
        return
    if kind not in ("chain", "rule", "set", "map", "element"):
        return  # counters, limits, flowtables: nothing that decides about a packet by itself
    key = (said["family"], said["table"])
    if key not in tables:
        raise ParseError(f"a {kind} belongs to the table {key[1]!r}, which is not there")
    table = tables[key]
    if kind == "chain":
        hook = said.get("hook", "")
        hook = hook if hook in HOOKS else ""  # ingress and egress come before and after all that is traced
        chain = NftChain(table, said["name"], hook, said.get("type", "filter"), int(said.get("prio", 0)), said.get("policy", "accept"))
        table.chains[chain.name] = chain
    elif kind == "rule":
        if said["chain"] not in table.chains:
            raise ParseError(f"a rule belongs to the chain {said['chain']!r}, which is not there")
        statements = said["expr"]
        if not isinstance(statements, list) or not all(isinstance(s, dict) and len(s) == 1 for s in statements):
            raise ParseError(f"a rule of the chain {said['chain']!r} has no list of statements")
        table.chains[said["chain"]].rules.append(NftRule(statements, int(said.get("handle", 0)), str(said.get("comment", ""))))
    elif kind in ("set", "map"):
        table.sets[said["name"]] = dict(said)
        table.lookup(said["name"])
    else:
        table.sets[said["name"]].setdefault("elem", []).extend(said["elem"])


def _check_jumps(chain: NftChain) -> None:
    for rule in chain.rules:
        for statement in rule.statements:
            for kind in ("jump", "goto"):
                target = statement[kind].get("target") if isinstance(statement.get(kind), dict) else None
                if target is not None and target not in chain.home.chains:
                    raise ParseError(f"the chain {chain.name!r} jumps to {target!r}, which is not there")
