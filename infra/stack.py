"""The state of `make up`: its folder, its secrets and environment, and what must hold before anything starts.

.rsdpo/up/  (RSDPO_UP)
    env                 sourced to run commands against the stack; holds the secrets, made once
    postgres/           database and socket, the database user's own where root runs the stack
    s3/                 buckets of the object store
    prefect/            PREFECT_HOME of the server and the workers
    logs/  supervisord.pid  control.sock
"""

import errno
import os
import pwd
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from infra.gpus import Gpus
from tasks.config.errors import ConfigurationError

ROOT = Path(__file__).parent.parent
BUCKET = "rs-dpo"
DATABASE_USER = "postgres"
SOCKET_BYTES = 107  # the longest path of a Unix socket on Linux


class StackError(RuntimeError):
    """A program of the stack does not start, or fails: its log says why."""


class Stack(NamedTuple):
    """One stack on this machine; several run side by side when folders and ports differ."""

    folder: Path
    """State, absolute."""
    api_port: int
    s3_port: int

    @property
    def env_file(self) -> Path:
        """Return the file that a person sources."""
        return self.folder / "env"

    @property
    def database(self) -> Path:
        """Return the folder of the database's data and socket."""
        return self.folder / "postgres"


def find_stack() -> Stack:
    """Return the stack that the environment describes.

    Raises:
        ConfigurationError: A port is no number, or the folder's path is too long for a Unix socket.
    """
    folder = Path(os.environ.get("RSDPO_UP") or ROOT / ".rsdpo" / "up").absolute()
    longest = f"{folder}/postgres/.s.PGSQL.5432"
    if len(os.fsencode(longest)) > SOCKET_BYTES:
        raise ConfigurationError(
            f"{longest} has more than the {SOCKET_BYTES} bytes that the path of a Unix socket may have: "
            "set RSDPO_UP to a shorter path, e.g. RSDPO_UP=/var/lib/rs-dpo"
        )
    return Stack(folder, _port("PREFECT_SERVER_API_PORT", 4200), _port("RSDPO_S3_PORT", 9000))


def check_ports(stack: Stack) -> None:
    """Refuse ports that something listens on.

    Raises:
        ConfigurationError: A port is taken.
    """
    for name, port in (("PREFECT_SERVER_API_PORT", stack.api_port), ("RSDPO_S3_PORT", stack.s3_port)):
        if _is_taken(port):
            raise ConfigurationError(f"port {port} is in use: stop what listens on it, or set {name} to another")


def _is_taken(port: int) -> bool:
    """Return whether something listens on a port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return True
    return False


def find_postgres() -> Path:
    """Return the folder of PostgreSQL's programs: from PATH, else the newest that Debian installs.

    Raises:
        ConfigurationError: There is none.
    """
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda program: float(program.parts[-3]))
    if not installed:
        raise ConfigurationError(
            "PostgreSQL's server is neither on PATH nor in /usr/lib/postgresql: install it "
            "(Debian, Ubuntu: apt install postgresql; Fedora: dnf install postgresql-server postgresql-contrib)"
        )
    return installed[-1].parent


def database_user() -> pwd.struct_passwd:
    """Return whom PostgreSQL runs as: this user, but `postgres` in place of root, whom it refuses.

    Raises:
        ConfigurationError: Root runs this where there is no user `postgres`.
    """
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    try:
        return pwd.getpwnam(DATABASE_USER)
    except KeyError as error:
        raise ConfigurationError(
            f"PostgreSQL does not run as root, and there is no user {DATABASE_USER}: make one "
            f"(useradd --system {DATABASE_USER}), or run make up as another user than root"
        ) from error


def make_database(stack: Stack, programs: Path) -> None:
    """Make the database's folder, once.

    Raises:
        ConfigurationError: The database's user cannot reach the folder.
    """
    user, data = database_user(), stack.database / "data"
    stack.database.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(stack.database, user.pw_uid, user.pw_gid)
        _check_reachable(stack.database, user)
    if (data / "PG_VERSION").exists():
        return
    shutil.rmtree(data, ignore_errors=True)  # of an initdb that was killed
    unfinished = stack.database / "data.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    # trust: whoever may enter the socket's folder, its owner and root, is the database's owner.
    initdb = [programs / "initdb", "-D", unfinished, "-U", DATABASE_USER, "--auth=trust", "--encoding=UTF8"]
    run_as(user, [*map(str, initdb), "--locale=C"])
    unfinished.rename(data)


def run_as(user: pwd.struct_passwd, command: list[str]) -> None:
    """Run a command as a user, whose output is shown where it fails.

    Raises:
        StackError: It fails.
    """
    who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    result = subprocess.run(command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **who)  # type: ignore[call-overload]
    if result.returncode:
        raise StackError(f"{shlex.join(command)} failed:\n{result.stdout.strip()}")


def write_env(stack: Stack) -> dict[str, str]:
    """Write the file that is sourced, with new secrets where there is none yet, and return what it sets."""
    known = read_env(stack.env_file) if stack.env_file.exists() else {}
    values = {
        "PREFECT_API_URL": f"http://127.0.0.1:{stack.api_port}/api",
        "PREFECT_API_AUTH_STRING": known.get("PREFECT_API_AUTH_STRING") or f"admin:{secrets.token_hex(24)}",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{stack.s3_port}",
        "AWS_ACCESS_KEY_ID": known.get("AWS_ACCESS_KEY_ID") or secrets.token_hex(10),
        "AWS_SECRET_ACCESS_KEY": known.get("AWS_SECRET_ACCESS_KEY") or secrets.token_hex(24),
        "AWS_DEFAULT_REGION": "us-east-1",
        "RSDPO_STORE": f"s3://{BUCKET}/store",
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    past = "127.0.0.1,localhost${NO_PROXY:+,$NO_PROXY}${no_proxy:+,$no_proxy}"
    lines += [f"export NO_PROXY={past} no_proxy={past}", f"unset {' '.join(_MISLEADING)}"]
    unfinished = stack.env_file.with_name("env.new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("# Source this to run commands against the stack of `make up`. It holds secrets.\n")
        file.write("\n".join(lines) + "\n")
    unfinished.replace(stack.env_file)
    return values


def read_env(file: Path) -> dict[str, str]:
    """Return what `write_env` set in the file; what the shell is left to work out is not among it."""
    words = (shlex.split(line, comments=True) for line in file.read_text().splitlines() if "${" not in line)
    return dict(line[1].split("=", 1) for line in words if line[:1] == ["export"])


def service_env(stack: Stack, values: dict[str, str], gpus: Gpus, programs: Path) -> dict[str, str]:
    """Return the environment of supervisord and so of everything that it starts."""
    inherited = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
    key = f'"{values["AWS_ACCESS_KEY_ID"]},{values["AWS_SECRET_ACCESS_KEY"]}"'  # CSV, as rclone reads it
    database = f"postgresql+asyncpg://{DATABASE_USER}@/postgres?host={stack.database}"
    return {
        **inherited,
        **values,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PWD": str(ROOT),
        "RSDPO_ROOT": str(ROOT),
        "RSDPO_UP": str(stack.folder),
        "RSDPO_GPU_WORKERS": str(gpus.workers),
        "RSDPO_GPUS_PER_WORKER": str(gpus.per_worker),
        "RSDPO_POSTGRES": str(programs / "postgres"),
        "RSDPO_POSTGRES_USER": database_user().pw_name,
        "RSDPO_S3_PORT": str(stack.s3_port),
        "RCLONE_AUTH_KEY": key,
        "PREFECT_HOME": str(stack.folder / "prefect"),
        "PREFECT_SERVER_API_PORT": str(stack.api_port),
        "PREFECT_SERVER_API_AUTH_STRING": values["PREFECT_API_AUTH_STRING"],
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
        # Leases in memory would be gone with the server, and their slots taken for ever.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_WORKER_QUERY_SECONDS": "0.5",
        # How often a worker asks what was cancelled, once its connection for events was lost with the server.
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    }


_MISLEADING = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "FSSPEC_S3_ENDPOINT_URL", "PREFECT_PROFILE")


def _port(name: str, default: int) -> int:
    value = os.environ.get(name) or str(default)
    if not value.isdecimal() or not 0 < int(value) < 65536:
        raise ConfigurationError(f"{name} = {value!r} must be a port, 1 to 65535, e.g. {default}")
    return int(value)


def _check_reachable(folder: Path, user: pwd.struct_passwd) -> None:
    for parent in reversed(folder.parents):
        if not parent.stat().st_mode & 0o001 and parent.stat().st_uid != user.pw_uid:
            raise ConfigurationError(
                f"PostgreSQL runs as {user.pw_name} here, who may not enter {parent}: set RSDPO_UP to a folder that "
                f"everybody may reach, e.g. RSDPO_UP=/var/lib/rs-dpo, or allow it (chmod o+x {parent})"
            )
