"""`make conformance`: the [sig-network] and [sig-node] tests that every conformant cluster must pass.

python -m tests.conformance                     on a cluster made for it and removed afterwards
python -m tests.conformance --cluster NAME      on one that is there; tests add and taint, so use one to throw away
python -m tests.conformance --focus 'Services'  only some of them
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import click

from lab_utils.cli.console import Console
from lab_utils.cluster import Cluster, connect
from lab_utils.errors import LabError
from lab_utils.paths import cache_dir
from lab_utils.providers import ClusterSpec, choose, provider
from lab_utils.run import follow
from tests.conformance import images, report, suite

NAME = "conformance"
CHOICE = r"\[sig-(network|node)\].*\[Conformance\]"


@click.command()
@click.option("--cluster", "existing", default=None, help="Use this cluster and leave it.")
@click.option("--focus", default="", help="Only tests whose name also matches this expression.")
@click.option("--processes", default=4, show_default=True, help="Tests side by side: they mostly wait.")
def main(existing: str | None, focus: str, processes: int) -> None:
    console = Console()
    start = time.monotonic()
    try:
        tests = suite.build(console)
        if existing:
            failed = run_on(connect(existing), tests, focus, processes, console)
        else:
            chosen = provider(choose())
            try:
                failed = run_on(chosen.up(ClusterSpec(NAME, workers=2), console), tests, focus, processes, console)
            finally:
                chosen.down(NAME, console)
    except LabError as error:
        click.echo(f"lab: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("lab: stopped; the cluster is gone", err=True)
        sys.exit(130)
    click.echo(f"{(time.monotonic() - start) / 60:.1f} minutes in all")
    sys.exit(1 if failed else 0)


def run_on(cluster: Cluster, tests: suite.Suite, focus: str, processes: int, console: Console) -> bool:
    """Run them, and say what came of each that did not pass. True when one failed, or none ran."""
    stand_ins = images.provide(cluster, tests, console)
    out = cache_dir() / "conformance"
    out.mkdir(parents=True, exist_ok=True)
    junit, log = out / "junit.xml", out / "e2e.log"
    junit.unlink(missing_ok=True)
    # Parts of the name in the order in which they are in it: the group, what is asked for, the label.
    chosen = CHOICE if not focus else rf"\[sig-(network|node)\].*({focus}).*\[Conformance\]"
    words = [f"--procs={processes}", "-v", "--no-color", "--timeout=3h", f"--focus={chosen}", f"--output-dir={out}"]
    left_out = images.left_out()
    words += [f"--skip={expression}" for expression in left_out]
    suite_words = ["--", f"--kubeconfig={cluster.kubeconfig}", "--provider=skeleton"]
    argv: list[str | Path] = [tests.ginkgo, *words, f"--junit-report={junit.name}", tests.tests, *suite_words]
    start = time.monotonic()
    with console.step(f"The tests, {processes} side by side (all that they say: {log})"), log.open("w") as file:
        follow(argv, _Count(file, console).line)
    if not junit.exists():
        click.echo(f"The suite did not run: its last words are in {log}")
        return True
    results = report.read(junit.read_text(), left_out)
    for result in results:
        if result.outcome != "passed":
            click.echo(f"{result.outcome.upper()} {result.name}\n    {_first_lines(result.why)}")
    if stand_ins:
        click.echo("Images that are not the official ones:\n    " + "\n    ".join(stand_ins))
    click.echo(f"\n{report.table(results)}\n\n{(time.monotonic() - start) / 60:.1f} minutes for the tests; JUnit: {junit}")
    return not results or any(result.outcome == "failed" for result in results)


class _Count:
    """Keeps all that ginkgo says in a file, and says every so often how far it is."""

    def __init__(self, file: object, console: Console) -> None:
        self.file, self.console = file, console
        self.done = 0
        self.of = "?"

    def line(self, line: str) -> None:
        print(line, file=self.file, flush=True)  # type: ignore[call-overload]
        if found := re.match(r"Will run (\d+) of", line):
            self.of = found[1]
        if re.match(r"(• \[|• \[FAILED\]|S \[SKIPPED\])", line):
            self.done += 1
            if self.done % 10 == 0 or "FAILED" in line:
                self.console.note(f"{self.done} of {self.of}" + (": one failed" if "FAILED" in line else ""))


def _first_lines(text: str) -> str:
    return "\n    ".join(text.splitlines()[:6])


if __name__ == "__main__":
    main()
