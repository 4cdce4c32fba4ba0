"""`make bench`: every bench_*.py beside this file, one table each. Name some to run only those: python -m tests.bench cluster"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

from tests.bench.report import Row, table


def main() -> None:
    names = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
    wanted = [name for name in names if not sys.argv[1:] or name.removeprefix("bench_") in sys.argv[1:]]
    for name in wanted:
        print(f"\n{name.removeprefix('bench_')}  (load {os.getloadavg()[0]:.1f})", flush=True)
        print(table([Row(*map(str, row)) for row in import_module(f"tests.bench.{name}").rows()]), flush=True)


main()
