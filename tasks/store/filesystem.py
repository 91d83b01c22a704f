"""Bytes to and from a file system that may fail: attempts, concurrency, writes that are whole or absent."""

import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tasks.config.errors import ConfigurationError
from tasks.store.artifacts import Content, DamagedArtifactError

if TYPE_CHECKING:
    from s3fs.core import S3FileSystem

T = TypeVar("T")
R = TypeVar("R")
WAITS = (0.05, 0.1, 0.2)
"""Seconds between the attempts of one operation on S3. Short: botocore has waited between its own by then."""
S3_OPTIONS: dict[str, Any] = {
    # Servers other than AWS often lack the newer checksum trailers that botocore sends by default.
    "config_kwargs": {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "retries": {"total_max_attempts": 5, "mode": "standard"},
        "max_pool_connections": 32,
    },
    "use_listings_cache": False,
}
CHUNK = 8 << 20
"""Bytes that one request reads. A part of the default size is smaller, so that it takes one."""


class StoreError(OSError):
    """The store could not be read or written, however often it was tried; the message says what to check."""


def store_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return what an operation on a store raises where it fails, and other errors that are caught with it.

    To be asked where an error is caught, and not before: what S3 raises is in libraries that take a second to import,
    and that are imported where S3 is used.
    """
    if "s3fs" not in sys.modules:
        return (*others, OSError)
    from botocore.exceptions import BotoCoreError
    from s3fs.core import S3_RETRYABLE_ERRORS

    return (*others, OSError, BotoCoreError, *S3_RETRYABLE_ERRORS)


def open_fs(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a path or URI, and the path within it, in which no character is a pattern or a link.

    What fsspec would read as such (`[ ] * ?`, `::`) stays a name. So call no method of the file system that expands
    patterns: `rm` (but for a local disk), `get`, `put`, `copy`, `glob`, `expand_path`.

    Args:
        uri: A path, or `s3://bucket/key`, both as they are; or `file:///path`, percent-encoded (RFC 8089), where what
            needs no encoding may go without.

    Raises:
        ConfigurationError: A key of S3 would be changed on its way, and so name another object.
    """
    scheme, separator, rest = uri.partition("://")
    if separator and scheme == "s3":
        settings = tuple((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
        return _s3(os.getpid(), settings), _s3_path(rest)
    if separator and scheme == "memory":
        return fsspec.filesystem("memory"), f"/{rest.strip('/')}"
    path = unquote(rest) if separator and scheme == "file" else uri
    return fsspec.filesystem("file"), os.path.join(os.getcwd(), os.path.expanduser(path)).rstrip("/") or "/"


def file_uri(path: str | Path) -> str:
    """Return the URI of an absolute local path, which `open_fs` turns into the same path again."""
    return f"file://{str(path).replace('%', '%25')}"


def as_meant(uri: str) -> str:
    """Return a URI that a person wrote; a `file://` URI is taken as not encoded where only such a path exists."""
    path = uri.removeprefix("file://")
    literal = path != uri and not os.path.lexists(unquote(path)) and os.path.lexists(path)
    return file_uri(path) if literal else uri


def remove(fs: fsspec.AbstractFileSystem, path: str) -> None:
    """Delete a file, or a folder with all that is in it; what is gone already is no error."""
    with suppress(FileNotFoundError):
        if isinstance(fs, LocalFileSystem):
            fs.rm(path, recursive=True)
            return
        for _ in in_parallel(fs.rm_file, fs.find(path), 8):  # `fs.rm` takes names for patterns
            pass


def read_small_file(fs: fsspec.AbstractFileSystem, path: str) -> bytes:
    """Return a file's content in one request.

    Raises:
        FileNotFoundError: There is no such file; nor is there where its folder is a file, on a disk as on S3.
    """
    try:
        content: bytes = fs.cat_file(path, max_concurrency=1)
    except NotADirectoryError as error:
        if fs.isfile(path.rpartition("/")[0]):
            raise FileNotFoundError(path) from error
        raise  # a folder further up is none: nothing can be told from that
    return content


def _s3_path(rest: str) -> str:
    """Return bucket and key; s3fs or HTTP would change some keys on their way."""
    path = rest.rstrip("/")
    if not {"", ".", ".."}.isdisjoint(path.split("/")) or "?versionId=" in path:
        raise ConfigurationError(
            f"s3://{rest} names no single place: write it without empty parts, '.', '..' and '?versionId='"
        )
    return path


@lru_cache(maxsize=4)
def _s3(process: int, settings: tuple[tuple[str, str], ...]) -> "S3FileSystem":
    """Return one connected file system for all threads of a process; fsspec would make one a thread."""
    from aiobotocore.session import AioSession  # type: ignore[import-untyped]
    from botocore.handlers import add_expect_header
    from s3fs.core import S3FileSystem

    session = AioSession()
    # aiohttp waits for the `100 Continue` without a time limit: a server that refuses at once would hang an upload.
    session.unregister("before-call.s3", add_expect_header)
    fs = S3FileSystem(session=session, skip_instance_cache=True, **S3_OPTIONS)
    fs.retries = 2  # s3fs repeats around botocore, and twice over: its own 5 held a read of a hung server for an hour
    return fs


def persist(attempt: Callable[[], T], uri: str, verb: str) -> T:
    """Return what an operation on a store returns; on S3, repeat it where it failed or what it read did not match.

    botocore repeats single requests, but not one whose body was cut or wrong. A local disk says at once what is wrong.

    Args:
        attempt: The operation; raises DamagedArtifactError where it read something else than the manifest says.
        uri: What it is about.
        verb: `read` or `written`.

    Raises:
        FileNotFoundError: What was to be read does not exist.
        DamagedArtifactError: The last attempt raised it.
        StoreError: The last attempt failed.
    """
    waits = WAITS if uri.startswith("s3://") else ()
    for wait in (*waits, None):
        try:
            return attempt()
        except DamagedArtifactError:
            if wait is None:
                raise
        except store_errors() as error:
            if isinstance(error, StoreError) or (isinstance(error, FileNotFoundError) and verb == "read"):
                raise
            if wait is None:
                raise StoreError(explain(error, uri, verb)) from error
        time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def explain(error: Exception, uri: str, verb: str) -> str:
    """Return a message for an error of a store: what could not be done, and what to check."""
    check = (
        "the bucket and its policy, AWS_ENDPOINT_URL, and that AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY still hold"
        if uri.startswith("s3://")
        else "permissions and disk space"
    )
    return f"{uri} cannot be {verb} ({type(error).__name__}: {error}): check {check}"


def in_parallel(function: Callable[[T], R], items: Iterable[T], at_once: int) -> Iterator[R]:
    """Yield `function(item)` of each item, in order, with `at_once` of them under way in threads."""
    with ThreadPoolExecutor(at_once) as pool:
        under_way: deque[Future[R]] = deque()
        for item in items:
            under_way.append(pool.submit(function, item))
            if len(under_way) == at_once:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def read_chunks(fs: fsspec.AbstractFileSystem, path: str, size: int) -> Iterator[bytes]:
    """Yield a file of a known size in pieces, the next ones already on their way.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if size <= CHUNK:  # max_concurrency=1 keeps s3fs from asking for the size first
        yield fs.cat_file(path, max_concurrency=1)
        return

    def read(start: int) -> bytes:
        end = min(start + CHUNK, size)

        def attempt() -> bytes:
            data: bytes = fs.cat_file(path, start=start, end=end)
            if len(data) != end - start:
                raise DamagedArtifactError(f"{path} has fewer than {size} bytes; run again")
            return data

        return persist(attempt, fs.unstrip_protocol(path), "read")

    yield from in_parallel(read, range(0, size, CHUNK), 4)


def write_file(fs: fsspec.AbstractFileSystem, path: str, data: Content) -> None:
    """Write a file so that it appears whole or not at all."""
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, data) if isinstance(data, bytes) else fs.put_file(str(data), path)
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=Path(path).parent, prefix=".partial-")
    try:
        with open(descriptor, "wb") as file:
            _write_content(file, data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)


def _write_content(file: IO[bytes], data: Content) -> None:
    if isinstance(data, bytes):
        file.write(data)
        return
    with data.open("rb") as source:
        shutil.copyfileobj(source, file, 1 << 20)
