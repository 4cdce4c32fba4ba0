"""Checks of a small lab on a cluster: the grader's own tests run on it."""

from lab_utils.checks import CheckContext, check


@check("config", points=4)
def _(lab: CheckContext) -> None:
    found = lab.find("configmap", "greeting")
    lab.require(found, expected="a ConfigMap named greeting", seen="none", look="kubectl get configmaps")
    lab.expect({"word": "hello"}, found["data"], look="kubectl get configmap greeting -o yaml")
    lab.sight("configmap/greeting", found["metadata"]["uid"])


@check("device", points=3)
def _(lab: CheckContext) -> None:
    lab.expect(True, lab.answered(bool), look="ip link, on cp")


@check("gone", points=3, after=["config"])
def _(lab: CheckContext) -> None:
    lab.gone("configmap/greeting", exists=lab.find("configmap", "greeting") is not None, look="kubectl get configmaps")
