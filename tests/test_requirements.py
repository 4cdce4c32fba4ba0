"""What `make setup` installs runs on the oldest Python that we name; pip-compile asks only whether it runs on the one that it runs on."""

from __future__ import annotations

import re
from importlib.metadata import metadata

from packaging.specifiers import SpecifierSet

from lab_utils.paths import repo_dir

OLDEST = "3.11.2"  # Debian 12's own


def test_all_of_the_lock_runs_on_the_oldest_python() -> None:
    locked = re.findall(r"^([a-z0-9._-]+)==", (repo_dir() / "requirements.lock").read_text(), re.MULTILINE)
    wanted = {name: "".join(metadata(name).get_all("Requires-Python") or []) for name in locked}
    assert len(wanted) > 100
    assert [f"{name} wants {python}" for name, python in wanted.items() if not SpecifierSet(python).contains(OLDEST)] == []
