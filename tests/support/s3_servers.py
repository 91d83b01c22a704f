"""Real S3 servers in child processes: rclone over a folder, and moto."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from s3fs import S3FileSystem

S3_USER, S3_PASSWORD = "test-user", "test-password"


@contextmanager
def rclone(folder: Path, *options: str, address: str = "127.0.0.1:0", password: str = S3_PASSWORD) -> Iterator[str]:
    """Serve a folder, whose subfolders are the buckets; yield the URL."""
    program = [str(Path(sys.executable).parent / "rclone"), "serve", "s3", "--config", os.devnull, "--addr", address]
    program += ["--auth-key", f"{S3_USER},{password}", *options, str(folder)]
    with serving(program, r"Starting s3 server on \[(http://[\d.:]+)") as url:
        yield url


@contextmanager
def moto() -> Iterator[str]:
    """Serve S3 from moto's memory; yield the URL."""
    with serving([sys.executable, "-m", "moto.server", "-p", "0"], r"Running on (http://127\.0\.0\.1:\d+)") as url:
        yield url


@contextmanager
def used_by_s3fs(url: str) -> Iterator[None]:
    """Point the AWS variables at a server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ACCESS_KEY_ID", S3_USER)
        patch.setenv("AWS_SECRET_ACCESS_KEY", S3_PASSWORD)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("NO_PROXY", "127.0.0.1")
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "FSSPEC_S3_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        S3FileSystem.clear_instance_cache()
        try:
            yield
        finally:
            S3FileSystem.clear_instance_cache()


@contextmanager
def serving(program: list[str], pattern: str) -> Iterator[str]:
    """Run a server until the end of the block; yield the URL that it logs once it listens."""
    from tasks.pipeline.jobs import die_with_parent

    with tempfile.NamedTemporaryFile() as log:
        server = subprocess.Popen(program, stdout=log, stderr=log, preexec_fn=die_with_parent)
        try:
            yield _wait_for_url(server, Path(log.name), pattern)
        finally:
            server.kill()
            server.wait()


def _wait_for_url(server: subprocess.Popen, log: Path, pattern: str) -> str:
    for _ in range(300):
        if found := re.search(pattern, log.read_text()):
            return found[1]
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not start: {log.read_text()}")
