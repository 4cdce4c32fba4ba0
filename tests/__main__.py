"""`make test`: the whole suite, in two lines side by side.

Whatever grades students' notebooks on nodes of their own mostly waits: for kernels, Pods and limits of time. It has a cluster to itself,
so all other tests run meanwhile. What it said is shown when both are done. Somebody's own cluster is only one: there, one line follows
the other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

ALONE = os.environ.get("LAB_TEST_PROVIDER") == "kubeconfig" or bool(os.environ.get("LAB_TEST_CLUSTER"))
PYTEST = [sys.executable, "-m", "pytest", "--durations=15"]


def main() -> int:
    if ALONE:
        try:
            codes = [subprocess.run([*PYTEST, "-m", line]).returncode for line in ("not beside", "beside")]
        except KeyboardInterrupt:
            return 130
        return codes[0] or codes[1]
    with tempfile.TemporaryFile("w+") as said:
        beside = subprocess.Popen([*PYTEST, "-m", "beside"], stdout=said, stderr=subprocess.STDOUT)
        try:
            rest = subprocess.run([*PYTEST, "-m", "not beside"]).returncode
            code = beside.wait()
        except KeyboardInterrupt:  # both of them have heard it, too, and remove what they made
            beside.wait()
            return 130
        said.seek(0)
        sys.stdout.write("\n" + said.read())
    return rest or code


if __name__ == "__main__":
    sys.exit(main())
