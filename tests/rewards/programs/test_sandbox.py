"""Programs that try to get out of the sandbox, or to use more than they may."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from tasks.config.errors import ConfigurationError
from tasks.rewards.programs import inside, sandbox
from tasks.rewards.programs.sandbox import Limits, run_sandboxed

TRY = """
def attempt(action, *arguments):
    try:
        print(action(*arguments))
    except BaseException as error:
        print(type(error).__name__, getattr(error, 'errno', ''))
"""


def run(program: str, stdin: str = "", **limits) -> sandbox.Outcome:
    return run_sandboxed(TRY + textwrap.dedent(program), stdin, Limits(**{"seconds": 20, **limits}))


def test_a_program_reads_and_prints():
    found = run("import sys; print(sys.stdin.read()[::-1]); open('x', 'w').write('y'); print(open('x').read())", "äb")
    assert found == (0, "bä\ny\n", False)
    assert run("raise SystemExit(3)").returncode == 3
    assert run("import numpy; print(numpy.arange(3).sum())").output == "3\n"
    assert run("print(sorted({'a', 'b', 'c', 'd'}), list({'a', 'b', 'c', 'd'}))") == run(
        "print(sorted({'a', 'b', 'c', 'd'}), list({'a', 'b', 'c', 'd'}))"
    )


def test_no_network_is_reached():
    reached = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: (server.accept(), reached.set()), daemon=True).start()
        port = server.getsockname()[1]
        found = run(f"""
            import ctypes, socket, urllib.request
            attempt(socket.create_connection, ('127.0.0.1', {port}))
            attempt(urllib.request.urlopen, 'http://127.0.0.1:{port}')
            attempt(socket.socket, socket.AF_UNIX)
            attempt(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
            print(ctypes.CDLL(None).syscall(425, 8, None))  # io_uring_setup: it makes sockets too
        """)
        assert found.output.split() == ["PermissionError", "1", "URLError", "None", *["PermissionError", "1"] * 2, "-1"]
        assert not reached.is_set()
        socket.create_connection(("127.0.0.1", port)).close()  # which we can
        assert reached.wait(10)


def test_nothing_is_read_or_written_elsewhere(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    found = run(f"""
        import ctypes, os, sys
        attempt(open, {str(secret)!r})
        attempt(open, {str(tmp_path / "new")!r}, 'w')
        attempt(open, '/etc/passwd')
        attempt(os.listdir, '/proc')
        attempt(open, sys.prefix + '/new', 'w')
        attempt(os.truncate, sys.prefix + '/pyvenv.cfg', 0)
        attempt(os.remove, '/usr/bin/env')
        attempt(os.mkdir, '/new')
        attempt(os.mknod, '/box/disk', 0o60666, os.makedev(8, 0))
        libc = ctypes.CDLL(None)
        print(libc.mount(b'x', b'/box', b'tmpfs', 0, None), libc.unshare(1 << 28), libc.umount2(b'/usr', 2))
    """)
    kinds = [line.split()[0] for line in found.output.splitlines()]
    assert kinds == [*["FileNotFoundError"] * 4, *["OSError"] * 4, "PermissionError", "-1"]
    assert found.output.splitlines()[-1] == "-1 -1 -1"
    assert secret.read_text() == "hidden"
    assert os.listdir(tmp_path) == ["secret"]


def test_no_secret_is_in_the_environment(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hidden")
    found = run("import os; print(sorted(os.environ), os.getpid(), os.getppid(), os.getuid())")
    names = "['HOME', 'LANG', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'PATH', 'PYTHONHASHSEED', 'TMPDIR']"
    assert found.output == f"{names} 2 1 65534\n"


def test_no_process_is_started_and_none_is_reached():
    found = run(f"""
        import os, signal, subprocess, threading
        attempt(os.fork)
        attempt(subprocess.run, ['ls'])
        attempt(os.posix_spawn, '/bin/ls', ['ls'], {{}})
        attempt(os.kill, {os.getpid()}, 9)
        attempt(os.kill, 1, signal.SIGINT)
        thread = threading.Thread(target=print, args=('thread',))
        thread.start(), thread.join()
    """)
    blocked = ["BlockingIOError", "11"] * 3
    assert found == (0, "\n".join([*(" ".join(blocked[:2]),) * 3, "ProcessLookupError 3", "None", "thread", ""]), False)


def test_a_fork_bomb_is_none():
    begin = time.monotonic()
    found = run("""
        import os
        for _ in range(10000):
            try:
                os.fork()
            except OSError:
                pass
        print('one')
    """)
    assert found.output == "one\n"
    assert time.monotonic() - begin < 20


def test_time_is_bounded():
    for program in ("while True: pass", "import time; time.sleep(100)", "import signal; signal.pause()"):
        begin = time.monotonic()
        assert run(program, seconds=1).timed_out
        assert time.monotonic() - begin < 10
    assert run("while True: pass", cpu_seconds=1) == (128 + signal.SIGKILL, "", False)


@pytest.mark.parametrize(
    "program",
    [
        "text = 'a' * (1 << 30)",
        "parts = []\nwhile True: parts.append('a' * (1 << 20))",
        "import mmap; mmap.mmap(-1, 1 << 30)",
        "import os\nos.memfd_create('x')",
        "import ctypes\nassert ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600) >= 0",
        "while True: print('a' * 10000)",
        "with open('x', 'wb') as file:\n    while True: file.write(bytes(1 << 20))",
        "for i in range(1000):\n    with open(str(i), 'wb') as file: file.write(bytes(1 << 20))",
        "for i in range(20000): open(str(i), 'w').close()",
        "files = [open('x', 'w') for _ in range(100)]",
    ],
)
def test_memory_and_files_are_bounded(program):
    found = run(program, memory_mb=256, files_mb=8)
    assert found.returncode not in (0, sandbox.TIMED_OUT)
    assert len(found.output) <= 8 << 20


def test_a_sandbox_dies_with_its_caller(tmp_path):
    """A caller that is killed leaves no process, though the program gave up its own end."""
    script = tmp_path / "caller.py"
    program = "import ctypes, os, time; ctypes.CDLL(None).prctl(1, 0, 0, 0, 0); os.setsid(); time.sleep(100)"
    script.write_text(
        f"from tasks.rewards.programs.sandbox import *\nrun_sandboxed({program!r}, '', Limits(seconds=60))\n"
    )
    caller = subprocess.Popen([sys.executable, str(script)], env={"PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        within = waited(lambda: psutil.Process(caller.pid).children(recursive=True), 3)
    finally:
        caller.kill()
        caller.wait()
    psutil.wait_procs(within, timeout=10)
    assert not [process for process in within if process.is_running()]


def waited(processes, number: int) -> list[psutil.Process]:
    """Return the supervisor, process 1 and the program, as soon as they are there."""
    for _ in range(200):
        if len(found := processes()) >= number:
            time.sleep(0.5)  # for the program to begin
            return processes()
        time.sleep(0.05)
    raise AssertionError(f"{len(found)} processes")


def test_a_machine_without_a_sandbox_runs_nothing(tmp_path, monkeypatch):
    """Namespaces are refused, as a container's profile does: nothing runs."""
    refusing = tmp_path / "inside.py"
    text = Path(sandbox.INSIDE).read_text()
    limited = text.replace("    enter_namespaces()\n", "    refuse_calls()\n    enter_namespaces()\n")
    assert limited != text
    refusing.write_text(limited)
    monkeypatch.setattr(sandbox, "INSIDE", refusing)
    with pytest.raises(
        ConfigurationError, match=r"was not run, .*unshare: Operation not permitted.*Linux 5.12.*seccomp"
    ):
        run("print('ran')")


def test_a_program_signals_no_process_but_its_own():
    for number in (signal.SIGKILL, signal.SIGALRM):  # -number: it has reached the supervisor
        assert run(f"import os; os.kill(0, {number:d})").returncode == 128 + number
    started = time.monotonic()
    assert run("import os, signal; os.kill(0, signal.SIGSTOP)", seconds=1).timed_out
    assert time.monotonic() - started < 15


def test_the_callers_keyring_is_out_of_reach():
    numbers = inside.MACHINES[os.uname().machine][1]
    found = run(f"""
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        for number in {[numbers[name] for name in ("add_key", "request_key", "keyctl")]}:
            print(libc.syscall(number, b'user', b'a', b'x', 1, -3), ctypes.get_errno())
    """)
    assert found.output.splitlines() == ["-1 1"] * 3
