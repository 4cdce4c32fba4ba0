"""A proxy of the user's network, and the addresses that it must not be asked for.

Behind a company's proxy a shell sets `HTTPS_PROXY`. kubectl and the Python client follow it, also to a cluster on this very machine, of
whose addresses no proxy knows. What is in `NO_PROXY` they ask by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

ASKED = ("http_proxy", "https_proxy", "all_proxy")
SERVER = re.compile(r"""^[\s-]*["']?server["']?:\s*["']?([^\s"',}]+)""", re.MULTILINE)


def servers(kubeconfig: str) -> list[str]:
    """The hosts of the API servers that a kubeconfig names, in YAML or in JSON."""
    return list(dict.fromkeys(host for url in SERVER.findall(kubeconfig) if (host := host_of(url))))


def servers_of(kubeconfig: Path) -> list[str]:
    """The same of a file; none of one that is not there (yet)."""
    try:
        return servers(kubeconfig.read_text(errors="replace"))
    except OSError:
        return []


def host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # half an IPv6 address
        return ""


def joined(hosts: Iterable[str], *known: str) -> str:
    """One list of exceptions: those that are there, and these hosts."""
    entries = [entry.strip() for each in known for entry in each.split(",")]
    return ",".join(dict.fromkeys(entry for entry in (*entries, *hosts) if entry))


def around(hosts: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to this environment so that no proxy is asked for these hosts; nothing where there is no proxy.

    In both spellings: Go reads the capitals first, curl and Python the small letters.
    """
    if not any(value for name, value in environment.items() if name.lower() in ASKED):
        return {}
    value = joined(hosts, environment.get("NO_PROXY", ""), environment.get("no_proxy", ""))
    return {"NO_PROXY": value, "no_proxy": value}
