"""The first program in the sandbox: it shuts itself in, then becomes the Python that runs untrusted code.

`sandbox.py` starts it by its path, with no environment, and sends JSON on stdin: `source`, the program; `stdin`, its
input; `folder`, an empty one; `binds`, what it may read; `limits`. Only the standard library is imported. Whatever it
writes to stderr says why there is no sandbox; what the program writes there is dropped.

1. The supervisor moves into new namespaces: of users, mounts, network, processes and IPC. Its alarm is the wall time.
2. Its child is process 1 there. As process 1 dies, the kernel kills all that is left; it dies with the supervisor.
3. Its grandchild builds a root of its own: what may be read, read-only, and one small writable folder in memory.
   There it gives itself limits, gives up every way to gain rights, has the kernel refuse system calls, and executes.
"""

import ctypes
import errno
import json
import os
import platform
import resource
import signal
import struct
import sys
from typing import Any, NoReturn

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 1 << 17, 1 << 27, 1 << 28, 1 << 29, 1 << 30
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC = 2, 4, 1 << 12, 1 << 14
MNT_DETACH = 2
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = 442, -100, 1 << 15, 1, 2
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
CLONE_THREAD = 1 << 16
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
REFUSED = (
    *("socket", "io_uring_setup", "unshare", "setns", "mount", "memfd_create", "memfd_secret", "shmget", "msgget"),
    *("add_key", "request_key", "keyctl"),
)
"""System calls that give a way out, memory that no limit counts, or the caller's keyring. Those that make processes are
refused as well."""
MACHINES: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {"socket": 41, "io_uring_setup": 425, "unshare": 272, "setns": 308, "mount": 165, "memfd_create": 319}
        | {"memfd_secret": 447, "shmget": 29, "msgget": 68, "pivot_root": 155}
        | {"add_key": 248, "request_key": 249, "keyctl": 250}
        | {"clone": 56, "fork": 57, "vfork": 58, "clone3": 435},
    ),
    "aarch64": (
        0xC00000B7,
        {"socket": 198, "io_uring_setup": 425, "unshare": 97, "setns": 268, "mount": 40, "memfd_create": 279}
        | {"memfd_secret": 447, "shmget": 194, "msgget": 186, "pivot_root": 41}
        | {"add_key": 217, "request_key": 218, "keyctl": 219}
        | {"clone": 220, "clone3": 435},
    ),
}
"""Machine -> its name for seccomp, and the numbers of its system calls."""
ENVIRONMENT = {
    "HOME": "/box",
    "TMPDIR": "/box",
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # the same run twice gives the same order of sets
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",  # each thread would take address space
}
"""All that the program sees of an environment."""


def call(name: str, *arguments: Any) -> None:
    """Call a function of the C library, which says 0 or sets errno.

    Raises:
        OSError: It failed.
    """
    if getattr(LIBC, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def bind(source: str, target: str) -> None:
    """Show a file or folder at a place of the new root, or a link as the link that it is."""
    if os.path.lexists(target):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(source):
        return os.symlink(os.readlink(source), target)
    if os.path.isdir(source):
        os.mkdir(target)
    else:
        open(target, "x").close()
    call("mount", os.path.realpath(source).encode(), target.encode(), None, MS_BIND | MS_REC, None)


def build_root(folder: str, binds: list[str], megabytes: int) -> None:
    """Make a root that shows `binds` alone, read-only, and a writable folder in memory; move there."""
    flags = MS_NOSUID | MS_NODEV
    call("mount", b"sandbox", folder.encode(), b"tmpfs", flags, b"size=1m,mode=755")
    for path in binds:
        bind(path, folder + path)
    read_only = struct.pack("QQQQ", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0, 0, 0)
    os.mkdir(f"{folder}/box")
    call("syscall", MOUNT_SETATTR, AT_FDCWD, folder.encode(), AT_RECURSIVE, read_only, len(read_only))
    room = f"size={megabytes}m,nr_inodes=10000,mode=1777".encode()
    call("mount", b"sandbox", f"{folder}/box".encode(), b"tmpfs", flags, room)
    os.chdir(folder)
    call("syscall", MACHINES[platform.machine()][1]["pivot_root"], b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir("/box")


def refuse_calls() -> None:
    """Have the kernel refuse `REFUSED` and every new process; threads are allowed.

    A classic BPF program: (code, jump if true, jump if false, constant). Offsets 0, 4 and 16 of its data are the number
    of the call, the machine and the first argument. glibc tries `clone` where `clone3` does not exist.
    """
    machine, numbers = MACHINES[platform.machine()]
    load, equal, at_least, has_bit, end = 0x20, 0x15, 0x35, 0x45, 0x06
    steps = [(load, 0, 0, 4), (equal, 1, 0, machine), (end, 0, 0, KILL), (load, 0, 0, 0)]
    steps += [(at_least, 0, 1, 1 << 30), (end, 0, 0, KILL)]  # x86_64 has a second set of numbers there
    refused = [(name, errno.EPERM) for name in REFUSED] + [("clone3", errno.ENOSYS)]
    refused += [(name, errno.EAGAIN) for name in ("fork", "vfork") if name in numbers]
    for name, error in refused:
        steps += [(equal, 0, 1, numbers[name]), (end, 0, 0, ERRNO | error)]
    steps += [(equal, 0, 3, numbers["clone"]), (load, 0, 0, 16), (has_bit, 1, 0, CLONE_THREAD)]
    steps += [(end, 0, 0, ERRNO | errno.EAGAIN), (end, 0, 0, ALLOW)]
    filter_ = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(filter_)))
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", PR_SET_SECCOMP, 2, program, 0, 0)


def set_limits(limits: dict[str, Any]) -> None:
    """Bound what the program may use: CPU seconds, bytes of memory and of a file, open files; no core dumps."""
    seconds, memory, size = int(limits["cpu_seconds"]), limits["memory_mb"] << 20, limits["files_mb"] << 20
    for kind, bound in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, size),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (bound, bound))


def go_on_in_child() -> None:
    """Fork: the child goes on and dies with its parent; the parent ends as the child ends."""
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(code if code >= 0 else 128 - code)
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def enter_namespaces() -> None:
    """Move into namespaces of its own, as a user who is nobody there and the same user outside."""
    user, group = os.geteuid(), os.getegid()
    call("unshare", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET)
    for name, text in (("setgroups", "deny"), ("uid_map", f"65534 {user} 1"), ("gid_map", f"65534 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def main() -> NoReturn:
    """Do what the order on stdin says."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's handler would let the program interrupt process 1
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    order = json.load(sys.stdin)
    if platform.machine() not in MACHINES:
        raise OSError(f"no list of system calls for {platform.machine()!r}: it has {', '.join(MACHINES)}")
    signal.setitimer(signal.ITIMER_REAL, order["limits"]["seconds"])
    enter_namespaces()
    go_on_in_child()
    go_on_in_child()
    os.setsid()  # a signal to its process group would reach the supervisor: one that is stopped hears no alarm
    build_root(order["folder"], order["binds"], order["limits"]["files_mb"])
    given = os.memfd_create("stdin", 0)
    os.write(given, order["stdin"].encode(errors="surrogatepass"))
    os.lseek(given, 0, os.SEEK_SET)
    os.dup2(given, 0)
    os.close(given)
    complaints = os.dup(2)
    os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
    try:
        set_limits(order["limits"])
        refuse_calls()
        os.execve(sys.executable, [sys.executable, "-P", "-s", "-B", "-c", order["source"]], ENVIRONMENT)
    except OSError as error:
        os.write(complaints, str(error).encode())
        os._exit(1)


if __name__ == "__main__":
    main()
