"""Reading, escaping, exhausting: what a student's code can reach and use up, tried from inside of the real sandbox."""

# ruff: noqa: E501 (a student's cell stands on one line, as it is sent)

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from lab_utils.grading.kernel import Kernel
from lab_utils.grading.limits import MIB, Limits
from lab_utils.grading.relay import Relay
from lab_utils.grading.sandbox import ANSWERS, Door, View
from lab_utils.run import run
from tests.grading.conftest import DATA

LIMITS = Limits(cell_seconds=60, grace_seconds=2)


@pytest.fixture(scope="module")
def shared() -> Iterator[Kernel]:
    """One kernel for all tests that leave it alive."""
    os.environ["LAB_TEST_SECRET"] = "token-of-the-grader"
    kernel = Kernel(f"lab-grade-test-{os.getpid()}", View({"/course": DATA / "labs"}), {"LAB_ROOT": "/course"}, LIMITS)
    yield kernel
    kernel.close()
    del os.environ["LAB_TEST_SECRET"]


@pytest.fixture
def fresh() -> Iterator[Callable[..., Kernel]]:
    made: list[Kernel] = []

    def make(**limits: float) -> Kernel:
        kernel = Kernel(f"lab-grade-test-{os.getpid()}-{len(made)}", View({}), {}, Limits(**{"grace_seconds": 1, **limits}))  # type: ignore[arg-type]
        made.append(kernel)
        return kernel

    yield make
    for kernel in made:
        kernel.close()


def says(kernel: Kernel, code: str, seconds: float = 60) -> str:
    outcome = kernel.run(code, seconds)
    return "".join(output.data for output in outcome.outputs) + outcome.note


# What it is


def test_it_is_nobody_and_can_do_nothing(shared: Kernel) -> None:
    status = says(shared, "print(open('/proc/self/status').read())")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["Uid"].split()[0]) != 0
    assert fields["NoNewPrivs"].strip() == "1"
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(fields[kind], 16) == 0


def test_every_namespace_is_its_own(shared: Kernel) -> None:
    inside = json.loads(
        says(shared, "import os, json; print(json.dumps({n: os.readlink('/proc/self/ns/' + n) for n in os.listdir('/proc/self/ns')}))")
    )
    for kind in ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup"):
        assert inside[kind] != str(Path(f"/proc/self/ns/{kind}").readlink()), kind


def test_no_further_user_namespace_can_be_made(shared: Kernel) -> None:
    assert "failed" in says(
        shared, "import subprocess; print(subprocess.run(['unshare', '--user', 'true'], capture_output=True, text=True).stderr)"
    )


def test_a_program_with_setuid_gives_nothing(shared: Kernel) -> None:
    assert "uid=0(" not in says(
        shared, "import subprocess; print(subprocess.run('su -c id; sudo id; mount', shell=True, capture_output=True, text=True))"
    )


def test_the_environment_holds_nothing_of_the_graders(shared: Kernel) -> None:
    inside = json.loads(says(shared, "import os, json; print(json.dumps(dict(os.environ)))"))
    assert "LAB_TEST_SECRET" not in inside
    assert not {"KUBECONFIG", "SSH_AUTH_SOCK", "LAB_STATE", "LAB_CACHE"} & set(inside)
    assert "token-of-the-grader" not in says(
        shared,
        "import glob\nfor p in glob.glob('/proc/[0-9]*/environ'):\n    try: print(open(p).read())\n    except OSError as e: print(e)",
    )


def test_home_and_ipython_folder_are_empty_and_its_own(shared: Kernel) -> None:
    text = says(shared, "import os; print(os.getcwd(), os.listdir('.'), os.path.expanduser('~'), os.environ['IPYTHONDIR'])")
    assert text.startswith("/home/student/work [] /home/student /home/student/.ipython")


# What it can read


def test_solutions_and_other_work_are_not_there(shared: Kernel, tmp_path: Path) -> None:
    other = tmp_path / "grace.ipynb"
    other.write_text("the work of somebody else")
    for path in (
        DATA / "solutions",
        other,
        tmp_path,
        Path("/root/.ssh"),
        Path("/etc/shadow"),
        Path("/var"),
        Path("/sys"),
        Path("/home/user"),
    ):
        assert says(shared, f"import os; print(os.path.exists({str(path)!r}))").strip() == "False", path


def test_the_course_and_the_package_are_read_only(shared: Kernel) -> None:
    import lab_utils

    for folder in ("/course/90-answers", str(Path(lab_utils.__file__).parent), "/usr", "/", "/dev", "/etc"):
        assert "OSError" in says(shared, f"open({folder + '/x'!r}, 'w')") or "PermissionError" in says(
            shared, f"open({folder + '/x'!r}, 'w')"
        ), folder


def test_only_its_own_processes_are_seen(shared: Kernel) -> None:
    pids = json.loads(says(shared, "import os, json; print(json.dumps([int(p) for p in os.listdir('/proc') if p.isdigit()]))"))
    assert len(pids) < 10
    assert max(pids) < 10_000


def test_disks_and_memory_of_the_host_cannot_be_opened(shared: Kernel) -> None:
    for device in ("/dev/vda", "/dev/sda", "/dev/mem", "/dev/kmsg", "/proc/kcore", "/proc/sysrq-trigger", "/proc/1/root/etc/passwd"):
        assert "Error" in says(shared, f"open({device!r}, 'rb').read(10)"), device


# What it can reach


def test_there_is_no_network(shared: Kernel) -> None:
    said = says(
        shared,
        "import socket\nfor a in [('1.1.1.1', 53), ('8.8.8.8', 80), ('192.168.0.1', 80)]:\n    try: socket.create_connection(a, 2); print('open')\n    except OSError as e: print('no')",
    )
    assert said == "no\nno\nno\n"


def test_services_of_this_machine_cannot_be_reached(shared: Kernel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as service:
        said = says(shared, f"import socket; socket.create_connection(('127.0.0.1', {service.getsockname()[1]}), 2)")
    assert "Connection refused" in said
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0lab-test-{os.getpid()}")
        abstract.listen()
        assert "Error" in says(shared, f"import socket; socket.socket(socket.AF_UNIX).connect('\\0lab-test-{os.getpid()}')")


def test_a_door_leads_to_its_target_and_nowhere_else(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as service:
        port = service.getsockname()[1]

        def answer() -> None:
            connection, _ = service.accept()
            with connection:
                connection.sendall(b"you said " + connection.recv(100))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        kernel = Kernel(f"lab-grade-test-{os.getpid()}", View({}), {}, LIMITS, [Door("172.31.255.254", 6443, ("127.0.0.1", port))])
        relay = Relay(kernel.sandbox.doors, 8)
        try:
            said = says(
                kernel, "import socket\ns = socket.create_connection(('172.31.255.254', 6443), 5); s.sendall(b'hello'); print(s.recv(100))"
            )
            assert said == "b'you said hello'\n"
            assert "Error" in says(kernel, "socket.create_connection(('172.31.255.254', 22), 2)")
            assert "Error" in says(kernel, "socket.create_connection(('172.31.255.253', 6443), 2)")
        finally:
            relay.close()
            kernel.close()
        thread.join(5)


# What it can use up


def test_an_endless_loop_is_interrupted_and_the_kernel_goes_on(fresh: Callable[..., Kernel]) -> None:
    kernel = fresh(grace_seconds=5)
    outcome = kernel.run("while True: pass", 1)
    assert (outcome.end, outcome.alive) == ("time", True)
    assert says(kernel, "print(1 + 1)") == "2\n"


@pytest.mark.parametrize(
    "loop",
    [
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        "import ctypes; ctypes.CDLL(None).pause.restype = None\nimport signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\nwhile True: pass",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\nwhile True:\n    try: time.sleep(1000)\n    except BaseException: pass",
    ],
    ids=["swallows it", "ignores it", "blocks all signals", "in a child too"],
)
def test_a_loop_that_ignores_the_interrupt_is_killed_in_time(fresh: Callable[..., Kernel], loop: str) -> None:
    kernel = fresh()
    begun = time.monotonic()
    outcome = kernel.run(loop, 1)
    assert outcome.end == "time"
    assert time.monotonic() - begun < 1 + 1 + 10  # the limit, the grace, and a slow machine
    # An interrupt that slips through (between two loops, by way of another thread) has done its work as well.
    assert kernel.run("1", 30).end == ("ok" if outcome.alive else "skipped")
    assert outcome.alive is False or "signal.signal" not in loop


def test_a_detached_child_does_not_outlive_the_kernel(fresh: Callable[..., Kernel]) -> None:
    kernel = fresh()
    word = f"sleeper-{os.getpid()}"
    says(kernel, f"import subprocess; subprocess.Popen(['bash', '-c', 'exec -a {word} sleep 1000'], start_new_session=True)")
    says(kernel, "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork(): os._exit(0)\n    time.sleep(1000)")

    def here() -> list[str]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if process.info["cmdline"] and process.info["cmdline"][0] == word:
                found.append(word)
        return found

    assert here()
    first = psutil.Process(kernel.sandbox.process.pid).children(recursive=True)
    kernel.close()
    assert not here()
    assert not [process for process in first if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def test_a_fork_bomb_hits_its_limit(fresh: Callable[..., Kernel]) -> None:
    kernel = fresh(processes=64)
    sandbox, most = psutil.Process(kernel.sandbox.process.pid), 0
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(kernel.run, "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", 3)
        while not running.done():
            with suppress(psutil.NoSuchProcess):
                most = max(most, len(sandbox.children(recursive=True)))
            time.sleep(0.05)
    assert running.result().end in ("time", "dead", "error")
    assert 10 < most < 80
    kernel.close()


def test_memory_ends_at_the_limit(fresh: Callable[..., Kernel]) -> None:
    kernel = fresh(memory_bytes=1024 * MIB)
    outcome = kernel.run("x = bytearray(2_000_000_000)", 30)
    assert (outcome.end, outcome.note.split(":")[0], outcome.alive) == ("error", "MemoryError", True)


def test_memory_of_many_processes_ends_at_the_limit_too(fresh: Callable[..., Kernel]) -> None:
    kernel = fresh(memory_bytes=768 * MIB)
    if "memory" not in kernel.sandbox.cgroup.limited:
        pytest.skip("this machine lets us make no memory cgroup; only each process is limited here")
    eat = "import os, time\nfor i in range(12):\n    if os.fork() == 0:\n        x = b'x' * 100_000_000; time.sleep(60); os._exit(0)\ntime.sleep(8)\nprint('survived', sum(1 for _ in os.scandir('/proc')))"
    kernel.run(eat, 20)
    assert kernel.sandbox.cgroup.out_of_memory()


def test_sixteen_busy_processes_have_no_more_of_the_processor_than_one(fresh: Callable[..., Kernel]) -> None:
    """They and one process of ours share one core. Counted one by one they would have sixteen parts of seventeen."""
    kernel = fresh()
    if "cpu" not in kernel.sandbox.cgroup.limited:
        pytest.skip("this machine lets us make no cpu cgroup; a sandbox has as many shares as processes")
    core = min(os.sched_getaffinity(0))
    spin = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    says(
        kernel,
        f"import subprocess, sys; busy = [subprocess.Popen([sys.executable, '-c', {spin!r}]) for _ in range(16)]; import time; time.sleep(3)",
    )
    folder = next(
        folder for folder in kernel.sandbox.cgroup.folders if (folder / "cpu.shares").exists() or (folder / "cpu.weight").exists()
    )
    with subprocess.Popen([sys.executable, "-c", spin]) as ours:

        def spent(*pids: int) -> float:
            return sum(psutil.Process(pid).cpu_times().user for pid in pids)

        theirs = [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
        before = spent(ours.pid), spent(*theirs)
        time.sleep(3)
        after = spent(ours.pid), spent(*theirs)
        ours.kill()
    assert len(theirs) > 16
    assert after[1] - before[1] < 4 * (after[0] - before[0])


def test_disks_are_small(fresh: Callable[..., Kernel]) -> None:
    kernel = fresh(disk_bytes=16 * MIB)
    for place in ("/tmp", "/home/student/work", "/dev/shm"):
        said = says(kernel, f"with open('{place}/x', 'wb') as f:\n    for _ in range(64): f.write(b'x' * 2**20)")
        assert "No space left" in said, place


def test_input_is_refused_at_once(shared: Kernel) -> None:
    outcome = shared.run("input('your name? ')", 30)
    assert outcome.end == "error"
    assert outcome.seconds < 10


def test_200_mb_of_output_leave_the_grader_flat(fresh: Callable[..., Kernel]) -> None:
    kernel = fresh(cell_seconds=60, grace_seconds=5)
    before = rss()
    outcome = kernel.run("for i in range(200_000): print('x' * 1000)", 60)
    assert outcome.end == "output"
    assert sum(len(output.data) for output in outcome.outputs) < 80_000
    assert rss() - before < 120
    assert kernel.dead or says(kernel, "print('still here')") == "still here\n"


@pytest.mark.parametrize(
    "flood",
    [
        "print('x' * 200_000_000)",
        "raise Exception('x' * 50_000_000)",
        "'x' * 50_000_000",
        "from IPython.display import *; display(HTML('x' * 50_000_000))",
    ],
)
def test_one_huge_message_is_cut_off_and_the_kernel_goes_on(fresh: Callable[..., Kernel], flood: str) -> None:
    kernel = fresh(grace_seconds=20)
    before = rss()
    outcome = kernel.run(flood, 60)
    assert outcome.alive
    assert rss() - before < 120
    assert says(kernel, "print('still here')").endswith("still here\n")


def test_a_forged_reply_ends_the_wait_but_gives_nothing(fresh: Callable[..., Kernel]) -> None:
    kernel = fresh()
    says(
        kernel,
        "k = get_ipython().kernel; k.session.send(k.iopub_socket, 'status', {'execution_state': 'idle'}, parent=k.get_parent()); k.session.send(k.iopub_socket, 'nonsense', {'a': ['b'] * 1000})",
    )
    assert says(kernel, "print(3)").endswith("3\n")


def test_garbage_on_the_channels_is_ignored(fresh: Callable[..., Kernel]) -> None:
    kernel = fresh()
    says(
        kernel,
        "import zmq\ns = get_ipython().kernel.iopub_socket\nfor parts in ([b''], [b'x'] * 100, [b'<IDS|MSG>', b'', b'{', b'{', b'{', b'{'], [b'<IDS|MSG>', b'x' * 64, b'[' * 5000, b'{}', b'{}', b'{}']): s.send_multipart(parts)",
    )
    assert says(kernel, "print(3)").endswith("3\n")


def test_thousands_of_cells_are_run_without_saving_each_time(fresh: Callable[..., Kernel]) -> None:
    kernel = fresh()
    begun = time.monotonic()
    assert all(kernel.run("1", 30).end == "ok" for _ in range(300))
    assert time.monotonic() - begun < 30


def test_nothing_is_left_of_a_sandbox(fresh: Callable[..., Kernel]) -> None:
    kernel = fresh()
    folders, pid = list(kernel.sandbox.cgroup.folders), kernel.sandbox.process.pid
    assert says(kernel, f"import os; print(os.path.isdir('{ANSWERS}'))") == "True\n"
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    kernel.close()
    assert not psutil.pid_exists(pid)
    assert not any(folder.exists() for folder in folders)
    assert len(list(Path("/proc/self/fd").iterdir())) < descriptors


NOT_ROOT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from lab_utils.grading.limits import Limits
from lab_utils.grading.sandbox import Door, Sandbox, View
probe = "grep -E 'Uid|Cap|NoNew' /proc/self/status; unshare --user true || echo no-namespace; touch /usr/x || echo read-only; test -e /var || echo no-var"
box = Sandbox("lab-grade-0", View({}), ["/bin/sh", "-c", probe], {"PATH": "/usr/bin"}, Limits(), [Door("172.31.255.254", 22, ("127.0.0.1", 1))])
box.process.wait(20)
print(box.last_words())
print("doors", len(box.doors))
box.close()
"""


def test_a_grader_that_is_not_root_makes_the_same_sandbox(tmp_path: Path) -> None:
    import lab_utils

    top = Path(lab_utils.__file__).parent.parent
    python = Path("/usr/bin/python3")
    if (
        os.geteuid() != 0
        or not python.exists()
        or run([python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], check=False).code
    ):
        pytest.skip("needs root, to become somebody else, and a Python 3.11 that somebody else may run")
    other = ["setpriv", "--reuid", "4242", "--regid", "4242", "--clear-groups", "env", "-i", "PATH=/usr/bin:/bin"]
    if run([*other, "test", "-r", top / "lab_utils/run.py"], check=False).code:
        pytest.skip(f"another user cannot read {top}")
    said = run([*other, python, "-B", "-c", NOT_ROOT, top], timeout=60).stdout
    for word in ("NoNewPrivs:\t1", "CapEff:\t0000000000000000", "no-namespace", "read-only", "no-var", "doors 1"):
        assert word in said, said


def rss() -> float:
    """The most memory this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
