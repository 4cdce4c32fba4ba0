"""The object that a learner holds in a notebook.

    from lab_utils import Lab
    lab = Lab("08-services")       # finds the cluster and makes the lab's starting state, once

    lab.answer("split", {"a": 0.5})    lab.check("split")     lab.hint("split")    lab.progress()
    lab.node("w1").run("ip link")      lab.kubectl("get", "pods")                  lab.show("pods")
    lab.inject("rule-lost", service="web")                    lab.reset()

In the grader's sandbox (LAB_ANSWERS is set) the same notebook runs: answers go to the grader's file, and the
grader itself prepares the cluster, injects faults and checks. What happens here then gives no points.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from lab_utils.checks import run_checks
from lab_utils.cluster import connect
from lab_utils.errors import LabError
from lab_utils.faults import inject as inject_fault
from lab_utils.faults import undo_all
from lab_utils.labs import views
from lab_utils.labs.bare import meant
from lab_utils.labs.catalog import LabFiles, find_lab
from lab_utils.labs.context import CheckContext
from lab_utils.labs.hints import count, hints_for, unlocked
from lab_utils.labs.lifecycle import clean, left_out, missing_needs, need_names, prepare
from lab_utils.labs.parts import Parts
from lab_utils.labs.reach import lost_steps
from lab_utils.labs.render import Card, Note, Report, Shown, progress_table
from lab_utils.labs.store import Store, learner_id
from lab_utils.labs.workspace import Workspace


class Lab(Workspace):
    """One lab, one learner, one cluster. `cluster` names one; otherwise it is found as `connect()` finds it."""

    def __init__(self, name: str, cluster: str | None = None) -> None:
        files = find_lab(name)
        found = connect(meant(files.spec, cluster))
        super().__init__(files.spec, files.checks, found, learner_id(), Store.of_learner(files.name, found.name))
        self.graded = "LAB_ANSWERS" in os.environ
        self.lacking: list[str] = []
        if not self.graded:
            need_names(self)  # before nodes are asked for anything: on somebody's own cluster that makes a Pod on each
            self.lacking = missing_needs(self.spec, self.cluster)
            prepare(self)
        self._set_environment()
        views.register_magics(self)

    # the work

    def answer(self, step: str, value: Any) -> Note:
        """Record an answer: text, a number, True, False, None, a list or a mapping of these."""
        self.spec.step(step)
        self.store.answer(step, value)
        return Note(f"recorded your answer to {step}")

    def check(self, step: str | None = None) -> Report:
        """Check one step; without a name, all that have not passed yet."""
        if self.graded:
            return Report([], note="The grader checks each step itself.")
        if step is not None:
            self.spec.step(step)
        context = CheckContext.of(self, self.store.results())
        wanted = [each.name for each in self.spec.steps if step in (None, each.name)]
        for name in wanted:
            self._check_with_parents(context, name, again=step is not None)
        shown = [context.results[each.name] for each in self.spec.steps if each.name in wanted]
        titles = {each.name: each.title for each in self.spec.steps}
        return Report(shown, titles, note=self._what_next(shown[0].step, shown[0].status) if len(shown) == 1 else "")

    def _check_with_parents(self, context: CheckContext, name: str, *, again: bool) -> None:
        """A parent that was not checked yet is checked now: one need not have clicked every cell before."""
        if name in context.results and context.results[name].passed and not again:
            return
        for parent in self.spec.step(name).after:
            self._check_with_parents(context, parent, again=False)
        for result in run_checks(self.checkset, context, only=name):
            self.store.record(result)

    def _what_next(self, step: str, status: str) -> str:
        if status != "failed":
            return ""
        return f'`lab.hint("{step}")` has {count(unlocked(self.spec, self.store, step), "hint")} for you.'

    def hint(self, step: str | None = None) -> Shown:
        """Hints for a step, or for the first that has not passed: one more after each failed check."""
        return hints_for(self.spec, self.store, step)

    def progress(self) -> Shown:
        """All steps, and how far you are."""
        return progress_table(self.spec, self.store.progress())

    def inject(self, fault: str, /, **options: Any) -> Note:
        """Break something, to be found and mended. `lab.reset()` undoes it in any case."""
        if self.graded:
            return Note(f"the grader has injected the fault {fault!r}", status="")
        inject_fault(self, fault, **options)
        return Note("Something is broken now. Find it and mend it; `lab.reset()` undoes it in any case.", status="error")

    def reset(self) -> Note:
        """Back to the lab's starting state: faults undone, objects made anew, answers forgotten. Your best scores stay."""
        if self.graded:
            return Note("the grader resets the lab itself", status="")
        clean(self)
        self.store.begin_anew()
        prepare(self)
        return Note(f"{self.name} is as it was at the beginning")

    def show(self, what: str = "pods", **options: Any) -> Any:
        """A table (pods, services, nodes, events, answers) or a drawing (cluster, node, path, service), made from live state."""
        return views.show(self, what, **options)

    @cached_property
    def parts(self) -> Parts:
        """The programs that cells beginning with %%part FILE PIECE make."""
        return Parts.begun(find_lab(self.name).notebook)

    # how it looks

    def card(self) -> Card:
        nodes = ", ".join(f"{node.name} ({node.ip})" for node in self.nodes)
        facts = [
            ("cluster", f"{self.cluster.name} ({self.cluster.provider}): {nodes}"),
            ("namespace", ", ".join(f"`{name}`" for name in self.namespaces)),
            *([("yours", ", ".join(f"{name} = `{value}`" for name, value in self.params.items()))] if self.params else []),
            ("you will", "; ".join(self.spec.objectives)),
            ("handing in", "only the cells of the tasks are graded: what a task needs stands in its own cell"),
        ]
        warnings = [("lacking", what) for what in self.lacking]
        if not self.graded and (lost := lost_steps(self.spec, self.checkset, self.cluster)):
            warnings.append(("skipped", f"{', '.join(lost)}: these steps need what is lacking, and do not count"))
        if not self.graded and (missing := left_out(self)):
            warnings.append(("not made", f"{', '.join(missing)}: only steps that are skipped ask for it"))
        return Card(self.spec, facts, warnings, self.store.notes)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, str], dict[str, Any]]:
        """The card, and beside it whose it is: parameters that a learner typed as literals are then graded as that learner's."""
        return self.card()._repr_mimebundle_(), {"lab": {"learner": self.learner}}

    def __repr__(self) -> str:
        return self.card().text()

    def _set_environment(self) -> None:
        """So that `!kubectl get pods` in a cell means this cluster and this lab's namespace."""
        text = self.cluster.kubectl("config", "view", "--raw", "--flatten").stdout
        config = yaml.safe_load(text)
        for each in config.get("contexts") or []:
            each["context"]["namespace"] = self.namespace
        path = self.store.cluster_folder / "kubeconfig"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))
        os.environ["KUBECONFIG"] = str(path)
        kubectl = Path(self.cluster.record.kubectl)
        words = os.environ.get("PATH", "").split(os.pathsep)
        if kubectl.is_absolute() and str(kubectl.parent) not in words:
            os.environ["PATH"] = os.pathsep.join([str(kubectl.parent), *words])


def reset_lab(name: str, cluster: str | None = None) -> str:
    """Remove a lab from its cluster, with its faults and answers; it is prepared anew when it is next opened.

    Works in a new process, and undoes faults first: one of them may keep the API from answering.
    """
    files: LabFiles = find_lab(name)
    try:
        found = connect(meant(files.spec, cluster))
    except LabError:
        Store.of_learner(files.name).begin_anew()  # without a cluster there is nothing else to undo
        raise
    workspace = Workspace(files.spec, files.checks, found, learner_id(), Store.of_learner(files.name, found.name))
    if not workspace.spec.needs.bare:  # bare nodes are made anew, with whatever was broken on them
        undo_all(workspace)
    clean(workspace)
    workspace.store.begin_anew()
    return files.name
