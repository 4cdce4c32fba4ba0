"""Files of a node that is reached by commands alone."""

from __future__ import annotations

import base64
import shlex
from pathlib import Path

from lab_utils.cluster import Node


class FilesByCommands(Node):
    """`put` and `get` through `run`, for nodes whose transport copies no files itself."""

    def put(self, source: Path | bytes, target: str, mode: int = 0o644) -> None:
        data = source if isinstance(source, bytes) else source.read_bytes()
        place, draft = shlex.quote(target), shlex.quote(f"{target}.lab-new")
        # Through a draft and a rename, so that a broken connection never leaves half a file. To `cat` it looks like the file's end.
        script = f"""mkdir -p "$(dirname {place})" && cat > {draft} && [ "$(wc -c < {draft})" -eq {len(data)} ] &&
            chmod {mode:o} {draft} && mv -f {draft} {place} || {{ rm -f {draft}; exit 1; }}"""
        self.run(script, input=data, timeout=600, check=True)

    def get(self, source: str) -> bytes:
        # base64, because a Result holds text.
        return base64.b64decode(self.run(["base64", "--", source], timeout=600, check=True).stdout)
