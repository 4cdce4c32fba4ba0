"""The program that makes namespaces, where the host confines the one that it has.

Ubuntu (since 25.04) and whoever takes over AppArmor's profile `unshare` let /usr/bin/unshare do all, and what it starts nothing: no
capability, no mount, for root as well. It is meant for user namespaces of users without rights. AppArmor knows a program by its path
(apparmor.d(5)), so a copy of it, which only root can make where we keep it, is an ordinary program of root's again.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

from lab_utils.paths import root_cache_dir

PROFILES = Path("/sys/kernel/security/apparmor/profiles")
NAME = "unshare"


@cache
def program() -> str:
    """Of root. What to run instead of `unshare`."""
    found = shutil.which(NAME)
    if not found or not is_confined():
        return NAME
    folder = root_cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{NAME}-", dir=folder) as draft:
        shutil.copyfile(found, Path(draft, NAME))
        Path(draft, NAME).chmod(0o755)
        return str(Path(draft, NAME).replace(folder / NAME))


def is_confined() -> bool:
    try:
        return names_it(PROFILES.read_text())
    except OSError:  # no AppArmor, or not root
        return False


def names_it(profiles: str) -> bool:
    """Of AppArmor's list of loaded profiles, a line each: `name (mode)`. Pure."""
    return bool(re.search(rf"^(\S*/)?{NAME} \((enforce|kill)\)$", profiles, re.MULTILINE))
