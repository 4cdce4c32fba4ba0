"""The outside judges of NetworkPolicy engines: cyclonus, and Kubernetes' own end-to-end tests. And a clock.

python -m tests.netpol --engine own                     a cluster with that engine, both judges, and the cluster is removed
python -m tests.netpol --engine kube-router --cluster NAME --judge cyclonus --only conflict
python -m tests.netpol --engine own --judge clock       how long a new policy is only a wish, with 10, 100 and 1,000 others
"""

from __future__ import annotations

import re
import sys
import time

import click

from lab_utils.addons import give
from lab_utils.cli.console import Console
from lab_utils.cluster import Cluster, connect
from lab_utils.errors import LabError
from lab_utils.network_policy import ENGINES
from lab_utils.paths import cache_dir
from lab_utils.progress import Progress
from lab_utils.providers import ClusterSpec, choose, provider
from lab_utils.run import follow
from tests.conformance import images, report, suite
from tests.netpol import clock, cyclonus

NAME = "netpol"
# Since v1.33 features are labels, printed in brackets at the end of a test's name.
CHOICE = r"\[sig-network\] Netpol.*\[Feature:NetworkPolicy\]"
NO_SCTP = r"SCTP"


@click.command()
@click.option("--engine", type=click.Choice(list(ENGINES)), required=True)
@click.option("--cluster", "existing", default=None, help="Use this cluster and leave it.")
@click.option("--judge", type=click.Choice(["both", "cyclonus", "e2e", "clock"]), default="both", show_default=True)
@click.option("--only", default="", help="A part: tags of cyclonus, or an expression for the names of the end-to-end tests.")
@click.option("--minutes", default=0.0, help="cyclonus begins no case after so many minutes. Without it, all of them run.")
def main(engine: str, existing: str | None, judge: str, only: str, minutes: float) -> None:
    console = Console()
    start = time.monotonic()
    if only and judge not in ("cyclonus", "e2e"):
        raise click.UsageError("--only needs --judge cyclonus or e2e: the two name their parts differently")
    chosen = provider(choose())
    failed = False
    try:
        cluster = connect(existing) if existing else chosen.up(ClusterSpec(NAME, workers=2, network_policy=engine), console)
        try:
            give(cluster, console, network_policy=engine)
            if judge == "clock":
                for line in clock.table(cluster, engine, console):
                    click.echo(line)
            if judge in ("both", "cyclonus"):
                failed |= by_cyclonus(cluster, only, minutes, console)
            if judge in ("both", "e2e"):
                failed |= by_e2e(cluster, only, console)
        finally:
            if not existing:
                chosen.down(NAME, console)
    except LabError as error:
        click.echo(f"lab: {error}", err=True)
        sys.exit(error.exit_code)
    click.echo(f"{engine}: {(time.monotonic() - start) / 60:.1f} minutes in all")
    sys.exit(1 if failed else 0)


def by_cyclonus(cluster: Cluster, only: str, minutes: float, progress: Progress) -> bool:
    count = cyclonus.judge(cluster, cyclonus.build(progress), progress, only=only, minutes=minutes)
    for name in count.failures:
        click.echo(f"FAILED {name}")
    click.echo(f"cyclonus: {count.passed} passed, {count.failed} failed, {count.skipped} skipped, {count.not_begun} not begun")
    return count.failed > 0 or count.passed == 0


def by_e2e(cluster: Cluster, only: str, progress: Progress) -> bool:
    tests = suite.build(progress)
    images.provide(cluster, tests, progress)
    out = cache_dir() / "netpol"
    out.mkdir(parents=True, exist_ok=True)
    junit, log = out / "e2e.xml", out / "e2e.log"
    junit.unlink(missing_ok=True)
    chosen = CHOICE if not only else rf"\[sig-network\] Netpol.*({only}).*\[Feature:NetworkPolicy\]"
    # One after another: each test makes three namespaces of three Pods, and lets everybody try everybody.
    words = ["--procs=1", "-v", "--no-color", "--timeout=3h", f"--focus={chosen}", f"--output-dir={out}", f"--junit-report={junit.name}"]
    left_out = {} if cyclonus.has_sctp() else {NO_SCTP: "this kernel has no SCTP sockets"}
    words += [f"--skip={expression}" for expression in left_out]
    with progress.step(f"The tests (all that they say: {log})"), log.open("w") as file:
        follow(
            [tests.ginkgo, *words, tests.tests, "--", f"--kubeconfig={cluster.kubeconfig}", "--provider=skeleton"],
            lambda line: print(line, file=file, flush=True),
        )
    text = junit.read_text() if junit.exists() else "<testsuites/>"
    # The report counts tests that are labelled [Conformance]; here the label is another.
    results = report.read(re.sub(r"\[Feature:NetworkPolicy\]", "[Conformance]", text), left_out)
    for result in results:
        if result.outcome != "passed":
            click.echo(f"{result.outcome.upper()} {result.name}\n    {result.why[:300]}")
    click.echo(report.table(results))
    return not results or any(result.outcome == "failed" for result in results)


if __name__ == "__main__":
    main()
