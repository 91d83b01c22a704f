"""What an artifact cost to compute."""

import time

from tasks.pipeline.progress import Progress, track
from tasks.store.artifacts import Provenance, sha256_of
from tasks.store.cost import Cost
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.manifests import read_manifest


def test_seconds_and_peak_memory_are_those_since_it_began():
    held = bytearray(400 << 20)
    held[::4096] = b"x" * len(held[::4096])
    del held
    cost = Cost()
    before = cost.measure()["peak_memory"]
    more = bytearray(200 << 20)
    more[::4096] = b"x" * len(more[::4096])
    time.sleep(0.05)
    found = cost.measure()
    assert 0.05 <= found["seconds"] < 30
    assert found["peak_memory"] - before > 150 << 20
    assert found["device"] == "cpu"


def test_the_manifest_has_the_cost_and_the_key_does_not(tmp_path):
    draft = Draft(Store(str(tmp_path)), Provenance(stage="double", version=1, key="0" * 64))
    with draft.measured():
        made = draft.commit("number", {}, sha256_of(b"1"))
    assert read_manifest(made.uri).cost.keys() == {"seconds", "phases", "peak_memory", "device"}
    assert draft.find() == made


def test_work_whose_progress_is_shown_is_a_phase_of_the_cost(tmp_path):
    draft = Draft(Store(str(tmp_path)), Provenance(stage="double", version=1, key="0" * 64))
    with draft.measured():
        for _ in range(2):  # as an evaluation draws for two policies
            list(track("drawing", range(3)))
        resumed = Progress("training steps", 10, start=4)
        resumed.move_to(10)
        resumed.close()
        time.sleep(0.05)
        made = draft.commit("number", {}, sha256_of(b"1"))
    cost = read_manifest(made.uri).cost
    assert {name: phase["units"] for name, phase in cost["phases"].items()} == {"drawing": 6, "training steps": 6}
    assert sum(phase["seconds"] for phase in cost["phases"].values()) < cost["seconds"] - 0.04
    list(track("drawing", range(3)))  # outside of a stage, nothing is measured
