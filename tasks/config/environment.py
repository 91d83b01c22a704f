"""What libraries read from the environment, set before any of them is imported: folders, and the way past a proxy.

Prefect's database and the caches of models, of vLLM and of this project lie in the home folder. Where that does not
exist or cannot be written, they go to a temporary folder, and one line says so.
"""

import logging
import os
import pwd
import tempfile
import warnings
from pathlib import Path

FOLDERS = {
    "PREFECT_HOME": ".prefect",
    "RSDPO_CACHE": ".cache/rsdpo",
    "HF_HOME": ".cache/huggingface",
    "VLLM_CACHE_ROOT": ".cache/vllm",
    "VLLM_CONFIG_ROOT": ".config/vllm",
    "TRITON_HOME": ".triton",
}
"""Variable -> the folder below the home folder that is used where the variable is not set."""
HERE = ("127.0.0.1", "localhost")
"""This machine, on which Prefect's temporary server runs, and perhaps S3."""


def find_folders() -> None:
    """Set the variables whose folders cannot be written, and `HOME` where there is none; what a person set stays."""
    # The command line says so itself, and what to set.
    warnings.filterwarnings("ignore", "Failed to create the Prefect home directory")
    _name_the_user()
    home = Path(os.path.expanduser("~"))  # not Path.home(), which fails for a user without an entry
    if not _is_folder(home):
        _move(home, ["HOME"])
        return
    moved = [name for name, folder in FOLDERS.items() if name not in os.environ and _is_closed(name, home / folder)]
    profiles = home / ".prefect" / "profiles.toml"
    if "PREFECT_HOME" in moved and profiles.is_file():  # may name the server
        os.environ.setdefault("PREFECT_PROFILES_PATH", str(profiles))
    if moved:
        _move(home, moved)


def pass_by_proxies() -> None:
    """Where there is a proxy, let connections to this machine pass it by."""
    proxies = {name.lower() for name in os.environ if name.lower().endswith("_proxy")} - {"no_proxy"}
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""  # the first one counts, says Python
    if proxies and given.strip() != "*":
        missing = [place for place in HERE if place not in given.split(",")]
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join([*missing, *filter(None, [given])])


def why_not_writable(folder: Path) -> str:
    """Return why nothing can be written in a folder, which need not exist yet; "" where it can."""
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".probe-") as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        return f"{type(error).__name__}: {error.strerror or error}"
    return ""


def _is_folder(home: Path) -> bool:
    """Tell whether there is a home folder, made where it can be."""
    if not home.is_absolute():  # the user has no entry, and HOME is not set
        return False
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return True


def _is_closed(name: str, folder: Path) -> bool:
    """Tell whether a folder can neither be written nor made; models that others downloaded may be read all the same."""
    if name == "HF_HOME" and folder.is_dir():
        return False
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    return not (there.is_dir() and os.access(there, os.W_OK | os.X_OK))


def _move(home: Path, names: list[str]) -> None:
    """Let variables name folders below a temporary home, each where it would be below the home folder, and say so."""
    try:
        place = _temporary_folder()
    except OSError:  # no temporary folder either: the command line says what to set
        return
    for name in names:
        os.environ[name] = str(place / FOLDERS.get(name, ""))
    logging.getLogger(__name__).warning(
        "the home folder %s cannot be written: %s moved to %s, which may not last. Set HOME, or %s",
        home,
        ", ".join(names),
        place,
        " and ".join(list(FOLDERS)[:2]),
    )


def _temporary_folder() -> Path:
    """Return this user's folder, the same each time so that caches are found again, unless a stranger made it."""
    folder = Path(tempfile.gettempdir()) / f"rs-dpo-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        state = folder.lstat()
        if not folder.is_dir() or folder.is_symlink() or state.st_uid != os.getuid() or state.st_mode & 0o022:
            return Path(tempfile.mkdtemp(prefix="rs-dpo-"))
    return folder


def _name_the_user() -> None:
    """Name a user whom the system does not know, as containers have them: torch asks for the name."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("USER", f"user-{os.getuid()}")
