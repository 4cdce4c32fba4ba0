"""Labs: what a check costs beside one question to the cluster, and what `lab build` costs beside reading its sources."""

from __future__ import annotations

import statistics

import jupytext

from lab_utils.labs.build import outputs
from lab_utils.labs.catalog import all_labs
from lab_utils.labs.rehearsal import rehearse
from lab_utils.labs.release import solution
from lab_utils.labs.source import read_source
from lab_utils.progress import Silent
from lab_utils.providers import ClusterSpec, provider
from tests.bench.report import Row, compare, seconds

NAME = "bench-labs"
MODELS = ("03-pods", "08-services")


def rows() -> list[Row]:
    labs = all_labs(sources=True)
    found = [
        compare(
            f"lab build of {len(labs)} labs, notebooks and checks / jupytext reading the same sources",
            lambda: [outputs(lab) for lab in labs],
            lambda: [jupytext.reads(path.read_text(), fmt="md:myst") for lab in labs for path in [lab.source, *lab.wrong]],
        )
    ]
    chosen = provider("embedded")
    try:
        cluster = chosen.up(ClusterSpec(NAME, workers=2), Silent())
        for lab in (lab for lab in labs if lab.name in MODELS):
            source = read_source(lab.source.read_text(), lab.name, str(lab.source))
            checks = sorted(result.seconds for result in rehearse(lab, solution(source), cluster).results)
            question = statistics.median(seconds(lambda: cluster.kubectl("get", "pods", "-A")) for _ in range(9))
            for name, value in (("median", statistics.median(checks)), ("slowest", checks[-1])):
                row = Row(
                    f"a check of lab {lab.name}, {name} of {len(checks)} / kubectl get pods",
                    f"{value:.2f} s",
                    f"{question:.2f} s",
                    f"{value / question:.1f}",
                )
                found.append(row)
        cluster.close()
    finally:
        chosen.down(NAME, Silent())
    return found
