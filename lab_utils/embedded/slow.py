"""What kubeadm is told besides, on machines that are emulated or very busy: `patience` times slower than others. Pure.

Kubernetes' own deadlines are made for ordinary machines. Where they are missed, what was late is ended and begins anew, which takes
so much time of the processor that the next one is late as well. With a patience of 1 nothing is said, and all is as kubeadm has it.
"""

from __future__ import annotations

from typing import Any

import yaml

# Where the patches lie on the node. Kubeadm takes a directory of them (kubeadm.k8s.io/v1beta4, Patches).
PATCHES = "/root/kubeadm-patches"

# Of the probes that kubeadm gives its Pods (app/util/staticpod/utils.go) these two go on for as long as the Pod lives; a patch may
# only touch those that a Pod has. Seconds until an answer is late, and between two questions: readiness is asked for every second.
# How many may be late or bad: a server under load says in time that it is not well, and would be ended for that, too.
LATE, OFTEN, BAD = 15, 10, 8
# Go's scheduler wakes one processor by another all the time, which is what emulated ones pay most for: with one for each program, a
# cluster that idles takes a third less. Memory may grow to five times what is in use before Go looks for what is not (100: to twice).
GO = {"GOMAXPROCS": "1", "GOGC": "400"}
UNITS = "/etc/systemd/system.conf.d/10-go.conf"
PROBES = {
    "kube-apiserver": ["livenessProbe", "readinessProbe"],
    "etcd": ["livenessProbe", "readinessProbe"],
    "kube-scheduler": ["livenessProbe", "readinessProbe"],
    "kube-controller-manager": ["livenessProbe"],
}


def timeouts(patience: float) -> dict[str, Any]:
    """kubeadm's own waiting times (its defaults in minutes, from apis/kubeadm/v1beta4/defaults.go)."""
    defaults = {"controlPlaneComponentHealthCheck": 4, "kubeletHealthCheck": 4, "kubernetesAPICall": 1, "etcdAPICall": 2}
    defaults |= {"tlsBootstrap": 5, "discovery": 5}
    return {"timeouts": {name: seconds(minutes * 60, patience) for name, minutes in defaults.items()}} if patience != 1 else {}


def waits(patience: float, control_plane: bool) -> dict[str, Any]:
    """What belongs into an InitConfiguration or JoinConfiguration; the patches are for Pods that a control plane alone has."""
    patched = {"patches": {"directory": PATCHES}} if control_plane and patience != 1 else {}
    return timeouts(patience) | patched


def relax_kubelet(kubelet: dict[str, Any], patience: float) -> None:
    if patience != 1:
        kubelet["runtimeRequestTimeout"] = seconds(120, patience)


def patches(patience: float) -> dict[str, str]:
    """By file name, what goes into PATCHES, for each part of the control plane: GO, more time for its answers to kubelet's probes and fewer
    of them, and arguments. Whoever runs kubeadm by hand gets all of it by naming the directory."""
    if patience == 1:
        return {}
    env = [{"name": name, "value": value} for name, value in GO.items()]
    probe = {"timeoutSeconds": int(LATE * patience), "periodSeconds": OFTEN, "failureThreshold": int(BAD * patience)}
    found = {}
    for pod, probes in PROBES.items():
        container = {"name": pod, "env": env, **{name: dict(probe) for name in probes}}
        found[f"{pod}+strategic.yaml"] = yaml.safe_dump({"spec": {"containers": [container]}})
        if more := arguments(pod, patience):
            # A strategic patch would take the place of the whole command. Of an argument that is there twice the last one holds.
            added = [{"op": "add", "path": "/spec/containers/0/command/-", "value": each} for each in more]
            found[f"{pod}0+json.yaml"] = yaml.safe_dump(added)
    return found


def arguments(pod: str, patience: float) -> list[str]:
    """There is one control plane, and nobody else who could lead: a lease that is renewed late must end nobody. A kubelet that is late is
    no node that is lost. etcd has no other member to hear from, and looks for one ten times a second; every five seconds it tells each
    watcher that nothing has happened."""
    return {
        "kube-scheduler": ["--leader-elect=false"],
        "kube-controller-manager": ["--leader-elect=false", f"--node-monitor-grace-period={seconds(50, patience)}"],
        "etcd": ["--heartbeat-interval=1000", "--election-timeout=10000", "--watch-progress-notify-interval=60s"],
    }.get(pod, [])


def flannel(patience: float) -> list[str]:
    """More arguments for flanneld. Every five seconds it runs iptables a dozen times to see whether its rules are still there: one
    fifth of what a cluster takes that has nothing to do."""
    return [f"--iptables-resync={5 * patience:.0f}"] if patience != 1 else []


def units(patience: float) -> dict[str, str]:
    """By path, what the node's systemd is told, for kubelet, containerd and all other units (systemd-system.conf(5))."""
    words = " ".join(f"{name}={value}" for name, value in GO.items())
    return {UNITS: f"[Manager]\nDefaultEnvironment={words}\n"} if patience != 1 else {}


# kubeadm's preflight gives the runtime two seconds to answer, whatever it is told (app/util/runtime/runtime.go, defaultTimeout). It looks
# before it makes anything, so it can be asked again.
TRIES = 3


def too_late(errors: str) -> bool:
    """Whether kubeadm ended because the runtime did not answer in these two seconds. One that is dead refuses at once."""
    return "[ERROR CRI]" in errors and "DeadlineExceeded" in errors


def seconds(usual: float, patience: float) -> str:
    return f"{usual * patience:.0f}s"
