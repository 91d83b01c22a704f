"""The reference's log-probabilities: each completion once, found by its tokens, and none that is foreign or missing."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from random_groups import neox, tokenizer
from transformers import PreTrainedModel

import tasks.training.reference
from tasks.config.training import DpoConfig, Lora
from tasks.store.artifacts import Artifact, DamagedArtifactError, Manifest
from tasks.store.filesystem import StoreError
from tasks.store.folders import Store
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS, format_digest, rows_digest
from tasks.training.dpo_examples import EXAMPLE_SCHEMA, sequence_id
from tasks.training.reference import WITHOUT_REF, find_ref_logps, look_up, ref_logps_table
from tasks.training.trained_model import write_tables

pytestmark = pytest.mark.usefixtures("one_thread")

FULL = DpoConfig(lora=None)
PROMPTS = {"a": [5, 6, 7], "b": [8], "c": [9, 10, 11, 12]}
COMPLETIONS = {"a": [[2, 3], [4], [5, 6, 7]], "b": [[2, 3], [3, 2]], "c": [[20, 21, 22, 23], [24]]}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Artifact:
    folder = tmp_path_factory.mktemp("reference")
    neox().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return Artifact(kind="model", uri=str(folder), digest="reference")


@pytest.fixture
def groups(tmp_path):
    """Return a function that lays out groups of some prompts, and returns their folder."""

    def write(*names: str, completions: dict = COMPLETIONS):
        folder = tmp_path / "-".join(names)
        folder.mkdir(exist_ok=True)
        rows = [
            {
                "prompt_id": name,
                "prompt": PROMPTS[name],
                "completion_ids": list(range(len(completions[name]))),
                "completions": completions[name],
                "sequence_ids": [sequence_id(PROMPTS[name], tuple(ids)) for ids in completions[name]],
                "chosen": [0],
                "rejected": [1],
            }
            for name in names
        ]
        write_tables(folder / WITHOUT_REF, [pa.Table.from_pylist(rows, EXAMPLE_SCHEMA)])
        return folder

    return write


def by_hand(model: PreTrainedModel, prompt: list[int], completion: list[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return float(torch.log_softmax(logits.double(), -1).gather(1, torch.tensor(completion)[:, None]).sum())


def test_equals_a_plain_forward_pass(store, reference, groups):
    found = find_ref_logps(store, reference, FULL, groups("a", "b", "c"))
    model = neox()
    expected = {
        sequence_id(PROMPTS[name], tuple(ids)): by_hand(model, PROMPTS[name], ids)
        for name, completions in COMPLETIONS.items()
        for ids in completions
    }
    assert found.by_sequence.keys() == expected.keys()
    assert found.forwarded == len(expected) == 7
    for id_, logps in expected.items():
        assert found.by_sequence[id_] == pytest.approx(logps, abs=1e-5)


def test_only_new_completions_are_computed(store, reference, groups):
    first = find_ref_logps(store, reference, FULL, groups("a"))
    assert first.forwarded == 3
    more = find_ref_logps(store, reference, FULL, groups("a", "c"))
    assert more.forwarded == 2
    assert more.by_sequence.items() >= first.by_sequence.items()
    assert more.parts.keys() > first.parts.keys()
    again = find_ref_logps(store, reference, FULL, groups("c", "a"))
    assert (again.forwarded, again.by_sequence) == (0, more.by_sequence)


def test_other_losses_and_thresholds_share(store, reference, groups):
    find_ref_logps(store, reference, FULL, groups("a"))
    for other in (DpoConfig(lora=None, loss_type="ipo", beta=0.5, tokens_per_batch=9), DpoConfig(lora=Lora(r=2))):
        assert find_ref_logps(store, reference, other, groups("a")).forwarded == 0
    assert (
        ref_logps_table(store, reference, DpoConfig(dtype="bfloat16")).folder
        != ref_logps_table(store, reference, FULL).folder
    )


def test_another_reference_has_its_own(store, reference, groups):
    find_ref_logps(store, reference, FULL, groups("a"))
    other = reference.model_copy(update={"digest": "another"})
    assert find_ref_logps(store, other, FULL, groups("a")).forwarded == 3


def test_equal_ids_of_other_texts_are_other_completions(store, reference, groups):
    find_ref_logps(store, reference, FULL, groups("b"))
    changed = {"b": [[2, 3], [30, 31]]}
    found = find_ref_logps(store, reference, FULL, groups("b", completions=changed))
    assert found.forwarded == 1
    assert found.by_sequence[sequence_id([8], (30, 31))] == pytest.approx(by_hand(neox(), [8], [30, 31]), abs=1e-5)


def test_a_prompt_and_completion_cut_elsewhere_are_another_sequence():
    assert len({sequence_id([1, 2], (3,)), sequence_id([1], (2, 3)), sequence_id([1, 2, 3], ())}) == 3


def plant(store: Store, reference: Artifact, name: str, logps: float, provenance=None) -> None:
    """Commit a part with one row of prompt `b` into the reference's table."""
    table = ref_logps_table(store, reference, FULL)
    row = {"prompt_id": "b", "completion_id": 0, "sequence_id": sequence_id([8], (2, 3)), "logps": logps}
    rows = pa.Table.from_pylist([row], SCHEMAS["ref_logps"])
    manifest = Manifest(
        kind="ref_logps", digest=format_digest(rows_digest(rows)), rows=1, provenance=provenance or table.provenance
    )
    store.commit(f"{table.folder}/{name}", {"rows.parquet": table_bytes(rows, "ref_logps")}, manifest)


def test_a_foreign_part_is_an_error(store, reference, groups):
    other = reference.model_copy(update={"digest": "another"})
    plant(store, reference, "planted", -1.0, ref_logps_table(store, other, FULL).provenance)
    with pytest.raises(DamagedArtifactError, match="planted was computed for another reference"):
        find_ref_logps(store, reference, FULL, groups("b"))


@pytest.mark.parametrize("logps", [float("nan"), float("-inf")])
def test_a_row_that_is_no_number_is_an_error(store, reference, groups, logps):
    plant(store, reference, "planted", logps)
    with pytest.raises(ValueError, match="no numbers: the reference model is broken"):
        find_ref_logps(store, reference, FULL, groups("b"))


def test_a_missing_row_is_an_error(store, reference, groups, monkeypatch):
    monkeypatch.setattr(tasks.training.reference, "run_job", lambda job: None)
    plant(store, reference, "half", -3.0)
    with pytest.raises(DamagedArtifactError, match="lacks 1 completions, first"):
        find_ref_logps(store, reference, FULL, groups("b"))


def test_a_kill_loses_the_part_in_flight(tmp_path, reference, groups, monkeypatch):
    store, folder = Store(str(tmp_path / "store")), groups("a", "b", "c")
    monkeypatch.setattr(tasks.training.reference, "PART", 2)
    append, calls = tasks.training.reference.GrowingTable.append, []

    def fails_the_second_time(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise StoreError("the store is gone")
        return append(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(tasks.training.reference.GrowingTable, "append", fails_the_second_time)
        with pytest.raises(StoreError, match="the store is gone"):
            find_ref_logps(store, reference, FULL, folder)
    assert find_ref_logps(store, reference, FULL, folder).forwarded == 7 - 3
    rows = look_up(ref_logps_table(store, reference, FULL), {sequence_id(PROMPTS["a"], (4,))})[0]
    np.testing.assert_allclose(list(rows.values()), by_hand(neox(), PROMPTS["a"], [4]), atol=1e-5)


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path, reference, groups):
    store = Store(str(tmp_path / "store"))
    found = find_ref_logps(store, reference, FULL.model_copy(update={"devices": 2}), groups("a", "b", "c"))
    assert found.forwarded == 7
    assert len(found.parts) == 2
