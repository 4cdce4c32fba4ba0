"""The checks of lab @NAME@. They compute what is right from the cluster, so nothing in here needs hiding."""

from lab_utils.checks import CheckContext, check


@check("predict", points=3)
def _(lab: CheckContext) -> None:
    answer = lab.answered(int)
    own = [each["metadata"]["name"] for each in lab.objects("configmaps")]
    right = len({*own, "notes"})  # whether or not it was made already
    lab.expect(right, answer, look="kubectl get configmaps")


@check("notes", points=5)
def _(lab: CheckContext) -> None:
    found = lab.find("configmap", "notes")
    lab.require(found, expected="a ConfigMap named notes", seen="there is none", look="kubectl get configmaps")
    right = {"port": str(lab.params["port"]), "colour": lab.params["colour"]}
    lab.compare(right, (found or {}).get("data") or {}, look="kubectl get configmap notes -o yaml")


@check("explain", points=3)
def _(lab: CheckContext) -> None:
    answer = lab.answered({"kubelet", "scheduler", "controller-manager"})
    lab.require(
        answer == "controller-manager",
        expected="the part that reconciles namespaces",
        seen=answer,
        look="kube-root-ca.crt's managed fields",
    )


@check("mend", points=5)
def _(lab: CheckContext) -> None:
    lab.injected("selector-wrong")
    service = lab.find("service", "door") or {}
    lab.expect({"app": "door"}, service.get("spec", {}).get("selector"), look="kubectl get service door -o yaml")
