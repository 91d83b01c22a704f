"""Whole runs under faults: a network that fails, pipelines that meet, stores that close, a disk that fills."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import runs
from disks import mounted
from faulty_proxy import FaultyProxy
from runs import digests, on_small_world, written
from s3_servers import rclone, used_by_s3fs

from tasks.examples.world import write_world
from tasks.store.folders import Store

pytestmark = pytest.mark.slow
CONFIG = "quickstart.yaml"
FIRST_PART, FIRST_REWARDS = "tables/completions/*/*/manifest.json", "tables/rewards/*/*/manifest.json"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "world"
    write_world(folder, seed=0, scale=0.1)
    return folder


def run(world: Path, store: Path | str, **changes: object) -> dict:
    return runs.run(CONFIG, **on_small_world(world, store, sampling__part_size=2, **changes))


@contextmanager
def started(world: Path, store: Path | str, output: Path, **changes: object) -> Iterator[subprocess.Popen]:
    settings = on_small_world(world, store, sampling__part_size=2, **changes)
    with runs.started(output, CONFIG, **settings) as process:
        yield process


def result_of(process: subprocess.Popen, output: Path) -> dict:
    """Wait for a run that must end well; return its last line of JSON."""
    assert process.wait(900) == 0, (output / "stderr").read_text()[-3000:]
    return json.loads((output / "stdout").read_text().splitlines()[-1])


@pytest.fixture(scope="module")
def undisturbed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """A run that nothing disturbs, and its store."""
    store = tmp_path_factory.mktemp("undisturbed")
    return run(world, store), store


# A network that fails


def test_a_run_over_a_faulty_network_ends_with_the_undisturbed_result(world, undisturbed, tmp_path):
    (tmp_path / "bucket").mkdir()
    with rclone(tmp_path) as url, FaultyProxy(url, seed=3).serving() as proxy, used_by_s3fs(proxy.url):
        result = run(world, "s3://bucket/store")
    assert digests(result) == digests(undisturbed[0])
    assert min(proxy.injected[fault] for fault in proxy.rates) > 0, proxy.injected
    assert written(tmp_path / "bucket/store").keys() == written(undisturbed[1]).keys()


# Pipelines that meet


def test_two_equal_pipelines_at_once_end_with_one_result(world, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))  # new to both
    store, outputs = tmp_path / "store", [tmp_path / "one", tmp_path / "other"]
    with ExitStack() as stack:
        processes = [stack.enter_context(started(world, store, output)) for output in outputs]
        results = [result_of(*each) for each in zip(processes, outputs, strict=True)]
    assert [digests(result) for result in results] == [digests(undisturbed[0])] * 2
    assert written(store).keys() == written(undisturbed[1]).keys()
    check_every_artifact(store)


def test_two_pipelines_that_differ_in_eta_share_the_rest(world, undisturbed, tmp_path):
    store, etas = tmp_path / "store", (0.85, 0.6)
    outputs = [tmp_path / str(eta) for eta in etas]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(started(world, store, output, pairs__eta=eta))
            for eta, output in zip(etas, outputs, strict=True)
        ]
        one, other = (result_of(*each) for each in zip(processes, outputs, strict=True))
    assert digests(one) == digests(undisturbed[0])
    own = {name for name, digest in digests(other).items() if digest != digests(one)[name]}
    assert own == {"pairs", "aligned", "evaluation"}
    more = {path.split("/")[0] for path in written(store).keys() - written(undisturbed[1]).keys()}
    assert more == {"build_pairs", "train_dpo", "evaluate_policy"} | ({"tables"} & more)  # of the other aligned policy
    check_every_artifact(store)


def check_every_artifact(folder: Path) -> None:
    """Look every manifest's folder up, as a stage would."""
    store = Store(str(folder))
    paths = [str(Path(path).parent) for path in written(folder)]
    assert [path for path in paths if store.find(path) is None] == []


# A store that closes in the middle


def refused(process: subprocess.Popen, output: Path) -> str:
    """Wait for a run that cannot go on; return the one message that it ends with."""
    assert process.wait(600) == 1, (output / "stderr").read_text()[-3000:]
    after = (output / "stderr").read_text().rpartition("Traceback (most recent call last)")[2]
    (message,) = [line for line in after.splitlines() if line.startswith("error: ")]
    return message


@pytest.fixture(scope="module")
def reopened(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, list[str], list[dict[str, int]]]:
    """A run on S3 that becomes read-only amid sampling, and whose key changes amid scoring, then is left to end.

    Returns its result, the message of either failure, and the manifests after each failure and at the end.
    """
    root = tmp_path_factory.mktemp("closing")
    store = root / "s3/bucket/store"
    store.parent.mkdir(parents=True)
    messages, manifests, address = [], [], "127.0.0.1:0"
    for number, (appears, options, key) in enumerate(
        [(FIRST_PART, ("--read-only",), {}), (FIRST_REWARDS, (), {"password": "another-password"})]
    ):
        with ExitStack() as stack:
            with rclone(root / "s3", address=address) as url:
                address = url.removeprefix("http://")
                stack.enter_context(used_by_s3fs(url))
                process = stack.enter_context(started(world, "s3://bucket/store", root / str(number)))
                runs.wait_until(process, store, appears)
            stack.enter_context(rclone(root / "s3", *options, address=address, **key))
            messages.append(refused(process, root / str(number)))
        manifests.append(written(store))
    with rclone(root / "s3", address=address) as url, used_by_s3fs(url):
        result = run(world, "s3://bucket/store")
    return result, messages, [*manifests, written(store)]


def test_a_closed_store_ends_the_run_with_one_message(reopened):
    read_only, other_key = reopened[1]
    assert "cannot be written" in read_only
    for message in (read_only, other_key):
        assert "check the bucket and its policy" in message
        assert "AWS_SECRET_ACCESS_KEY" in message


def test_no_stage_is_committed_in_a_store_that_closed(reopened):
    read_only, other_key, _ = ({path.split("/")[0] for path in paths} for paths in reopened[2])
    assert {"sample_completions", "score_completions"} & read_only == set()
    assert "sample_completions" in other_key
    assert "score_completions" not in other_key


def test_a_repaired_store_is_gone_on_with(reopened, undisturbed):
    result, _, manifests = reopened
    assert digests(result) == digests(undisturbed[0])
    for before in manifests[:-1]:
        kept = {path: time for path, time in before.items() if not path.startswith("checkpoints/")}
        assert kept.items() <= manifests[-1].items(), "something committed was written again"
    assert manifests[-1].keys() == written(undisturbed[1]).keys()


# A disk that fills


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", megabytes=64) as folder:
        yield folder


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        for block in (1 << 20, 1 << 12):
            try:
                while file.write(bytes(block)):
                    pass
            except OSError:
                continue


def test_a_run_whose_disk_fills_goes_on_once_there_is_room(world, undisturbed, small_disk, tmp_path):
    store = small_disk / "store"
    with started(world, store, tmp_path / "full") as process:
        runs.wait_until(process, store, FIRST_PART)
        fill(small_disk / "ballast")
        message = refused(process, tmp_path / "full")
    assert "No space left on device" in message
    assert "check permissions and disk space" in message
    before = written(store)
    assert not [path for path in before if path.startswith("sample_completions/")]
    assert list(small_disk.rglob(".partial-*")) == []
    (small_disk / "ballast").unlink()
    assert digests(run(world, store)) == digests(undisturbed[0])
    kept = {path: time for path, time in before.items() if not path.startswith("checkpoints/")}
    assert kept.items() <= written(store).items()
