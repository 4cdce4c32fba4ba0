"""A proof outside pytest, on a machine of its own: each line with `ok` or `FAIL` is one thing proven or not; END is the last."""

from __future__ import annotations

import subprocess
import time
import traceback
from collections.abc import Callable

START = time.monotonic()

# A Pod on every node that says its name, behind a Service.
WEB = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      tolerations: [{operator: Exists}]
      containers:
      - name: web
        image: registry.k8s.io/e2e-test-images/agnhost:2.63.0
        args: [netexec, --http-port=8080]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, timeoutSeconds: 10}
        resources: {limits: {memory: 64Mi}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""


class Said(Exception):
    """What was seen instead of what was expected."""


def say(line: str) -> None:
    print(line, flush=True)


def prove(what: str, holds: Callable[[], object]) -> bool:
    """One line of the report. `holds` raises, or returns a remark for the line."""
    started = time.monotonic()
    try:
        remark = holds()
    except Said as problem:
        said = str(problem).splitlines()[-25:]
    except Exception:
        said = traceback.format_exc().splitlines()[-12:]
    else:
        say(f"ok   {what}{f': {remark}' if remark else ''} ({time.monotonic() - started:.0f} s)")
        return True
    say(f"FAIL {what}")
    for line in said:
        say(f"       {line}")
    return False


def sh(*words: str, check: bool = True, timeout: float = 600) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise Said(f"{' '.join(words)} ended with code {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done.stdout


def talk(process: subprocess.Popen[str], *, loud: bool, seconds: float) -> tuple[str, str]:
    """Both streams of a command, to its end; `loud` shows what it says on the second one as it goes."""
    heard = ""
    if loud:
        assert process.stderr
        for line in process.stderr:
            heard += line
            say(f"     {time.monotonic() - START:5.0f} s | {line.rstrip()}")
    output, rest = process.communicate(timeout=seconds)
    return output, heard + rest


class Verdict:
    """What a proof says, line by line: shown as it comes, and counted."""

    def __init__(self) -> None:
        self.passed = self.failed = 0
        self.finished = False

    def line(self, line: str) -> None:
        line = line.rstrip("\r\n")
        self.passed += line.startswith("ok ")
        self.failed += line.startswith("FAIL ")
        if line == "END":
            self.finished = True
        else:
            say(line)
