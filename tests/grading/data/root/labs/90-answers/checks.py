"""Checks of a lab that asks for answers only: the grader's own tests run on it, without a cluster."""

from lab_utils.checks import CheckContext, check


@check("sum", points=2)
def _(lab: CheckContext) -> None:
    lab.expect(lab.params["first"] + 1, lab.answered(int), look='lab.params["first"]')


@check("word", points=3)
def _(lab: CheckContext) -> None:
    lab.expect("pod", lab.answered(str).strip().lower(), look="kubectl explain pod")


@check("table", points=5)
def _(lab: CheckContext) -> None:
    right = {"api": 6443, "etcd": 2379, "kubelet": 10250, "dns": 53, "ssh": 22}
    lab.compare(right, lab.answered(dict), look="ss -tlnp")


@check("double", points=2, after=["sum"])
def _(lab: CheckContext) -> None:
    lab.expect((lab.params["first"] + 1) * 2, lab.answered(int))


@check("last", points=1)
def _(lab: CheckContext) -> None:
    lab.expect(7, lab.answered(int))
