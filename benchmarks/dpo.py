"""Grouped DPO against TRL's `DPOTrainer` on the same pairs: an epoch, a step's gradient, rows forwarded, the reference.

Prompts of about 175 tokens, k = 16 completions of about 256, rewards spread as in the paper: 22.5% of the prompts with
standard deviation 0.778, the rest 0.359; tau = 1, eta = 0.85. An epoch begins with the model on disk and ends with the
trained one there; the reference's log-probabilities are in it. TRL has the best of its settings that were tried:
batches of like length, no gradient checkpointing, a reference model beside the policy.

    python benchmarks/dpo.py [--device cuda --model M] [--prompts 100] [--rounds 1]
"""

import contextlib
import io
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from _pairs import K, World, as_groups, draw, write_model
from _side_by_side import Row, faster, options, report, take_turns
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GPTNeoXConfig, LlamaConfig
from transformers.utils import logging
from trl import DPOConfig as DpoArguments

from tasks.config.sections import ModelSource
from tasks.config.training import DpoConfig
from tasks.dpo import fit, with_ref_logps
from tasks.models.locate import locate_model
from tasks.pipeline.jobs import EXAMPLES, Job
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.training.dpo_examples import EXAMPLE_SCHEMA
from tasks.training.dpo_trainer import PackedDPOTrainer
from tasks.training.pack_collator import PackCollator, pack_numbers
from tasks.training.packs import DpoExample, Limits, PackSchedule, schedule_packs
from tasks.training.reference import WITHOUT_REF, RefLogps, find_ref_logps
from tasks.training.trained_model import write_tables

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
from pairwise import PairwiseTrainer, gradient, pair_rows, precise_head

VOCABULARY, BATCH = 1024, 64


def new_store(world: World) -> Store:
    """Return an empty store."""
    return Store(tempfile.mkdtemp(dir=world.folder))


def reference_of(world: World, store: Store, groups: list[dict[str, Any]], folder: Path | None = None) -> RefLogps:
    """Return the log-probabilities of the groups' completions under the reference."""
    folder = folder or Path(tempfile.mkdtemp(dir=world.folder))
    write_tables(folder / WITHOUT_REF, [pa.Table.from_pylist(groups, EXAMPLE_SCHEMA)])
    return find_ref_logps(store, world.model, world.config, folder)


def our_epoch(world: World) -> None:
    """Compute the reference's log-probabilities into an empty store and train."""
    store, folder = new_store(world), Path(tempfile.mkdtemp(dir=world.folder))
    reference = reference_of(world, store, world.groups, folder)
    write_tables(folder / EXAMPLES, with_ref_logps(folder, reference.by_sequence))
    settings = world.config.model_dump(mode="json")
    job = Job(fit="tasks.dpo:fit", folder=folder, model=Path(world.model.uri), store=store.uri, config=settings)
    fit(job.model_copy(update={"checkpoints": "checkpoints"}))


def trl_arguments(world: World, folder: str, **changes: Any) -> DpoArguments:
    """Return TRL's arguments for the same training."""
    arguments = {
        "output_dir": folder,
        "beta": world.config.beta,
        "learning_rate": world.config.learning_rate,
        "per_device_train_batch_size": world.micro_batch,
        "gradient_accumulation_steps": BATCH // world.micro_batch,
        "num_train_epochs": 1,
        "train_sampling_strategy": "group_by_length",
        "remove_unused_columns": False,
        "gradient_checkpointing": False,
        "bf16": world.config.dtype == "bfloat16",
        "max_length": None,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "report_to": "none",
        "disable_tqdm": True,
    }
    return DpoArguments(**arguments | changes)


def trl_epoch(world: World) -> None:
    """Train with TRL."""
    folder = tempfile.mkdtemp(dir=world.folder)
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(world.model.uri, dtype=torch.float32 if not i else world.config.dtype)
        for i in range(2)
    )
    rows = pair_rows(as_groups(world.groups), with_ref=False)
    for row in rows:
        row["length"] = len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
    trainer = PairwiseTrainer(
        model=policy,
        ref_model=reference,
        args=trl_arguments(world, folder),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(world.model.uri),
    )
    trainer.train()
    trainer.save_model()


def grouped(
    world: World, groups: list[DpoExample], planned: PackSchedule, shared: bool
) -> tuple[PackedDPOTrainer, list[Any]]:
    """Return our trainer and its batches."""
    collator = PackCollator(groups, planned.packs, shared)
    arguments = trl_arguments(world, str(world.folder / "unused"), precompute_ref_log_probs=True)
    trainer = PackedDPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(world.model.uri, dtype=torch.get_default_dtype()),
        args=arguments,
        data_collator=collator,
        train_dataset=pack_numbers(planned),
        processing_class=AutoTokenizer.from_pretrained(world.model.uri),
    )
    return trainer, [on(trainer, collator([{"pack": number}])) for number in range(len(planned.packs))]


def pairwise(world: World, groups: list[DpoExample], planned: PackSchedule) -> tuple[PairwiseTrainer, list[Any]]:
    """Return TRL's trainer and the pairs of the same packs."""
    trainer = PairwiseTrainer(
        model=AutoModelForCausalLM.from_pretrained(world.model.uri, dtype=torch.get_default_dtype()),
        args=trl_arguments(world, str(world.folder / "unused"), precompute_ref_log_probs=True),
        train_dataset=Dataset.from_list(pair_rows(groups)),
        processing_class=AutoTokenizer.from_pretrained(world.model.uri),
    )
    return trainer, [on(trainer, trainer.data_collator(pair_rows(groups, pack.pieces))) for pack in planned.packs]


def on(trainer: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch on the trainer's device."""
    from accelerate.utils import send_to_device

    return send_to_device(batch, trainer.accelerator.device)


@contextlib.contextmanager
def counted(model: Any) -> Iterator[dict[str, int]]:
    """Count the rows and tokens, padding included, that go through a model."""
    counts = {"rows": 0, "tokens": 0}

    def count(module: Any, arguments: Any, output: torch.Tensor) -> None:
        counts["rows"] += output.shape[0]
        counts["tokens"] += output.shape[0] * output.shape[1]

    hook = model.get_input_embeddings().register_forward_hook(count)
    yield counts
    hook.remove()


def epoch_rows(world: World, rounds: int) -> list[Row]:
    """Compare an epoch."""
    for side in (our_epoch, trl_epoch):  # what a process does once, imports above all, counts for neither
        quiet(side, world._replace(groups=world.groups[:2]))()
    seconds = take_turns(quiet(our_epoch, world), quiet(trl_epoch, world), rounds)
    return [faster("DPO epoch, reference included", seconds, 5.0 if world.config.dtype == "float32" else 3.0)]


def batch_rows(world: World, rounds: int, facts: dict[str, Any]) -> list[Row]:
    """Compare forward and backward passes over the same batches, and count what is forwarded."""
    groups, limits = as_groups(world.groups), Limits(BATCH, world.config.tokens_per_batch, 1, False)
    planned = schedule_packs(groups, limits, 1, None, 0)
    ours, other = grouped(world, groups, planned, shared=False), pairwise(world, groups, planned)
    shared = grouped(world, groups, schedule_packs(groups, limits._replace(shared=True), 1, None, 0), shared=True)
    counts: dict[str, dict[str, int]] = {}
    with counted(ours[0].model) as counts["grouped only"], counted(other[0].model) as counts["pairwise"]:
        seconds = take_turns(lambda: gradient(*ours), lambda: gradient(*other), rounds)
    with counted(shared[0].model) as counts["with shared prompts"]:
        for _ in range(rounds):
            gradient(*shared)
    for name, count in counts.items():
        facts[f"forwarded, {name}"] = (
            f"{count['rows'] // rounds:,} rows, {count['tokens'] // rounds:,} tokens with padding"
        )
    unique = sum(len(group.completions) for group in groups)
    forwarded = counts["with shared prompts"]["rows"] // rounds - len(groups)  # each prompt is one row, too
    return [
        faster("grouped only, forward and backward", seconds, 2.0),
        Row("completions forwarded, unique completions", forwarded, unique, unique / forwarded, 1.0),
    ]


def gradient_rows(world: World) -> list[Row]:
    """Compare the gradient of one step, in float64 and float32, and the first loss with ln 2."""
    rows, loss = [], 0.0
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    small = world._replace(groups=world.groups[:4], config=world.config.model_copy(update={"dtype": "float32"}))
    small = small._replace(model=write_model(world.folder / "neox", GPTNeoXConfig(vocab_size=VOCABULARY, **sizes)))
    groups = as_groups(small.groups, reference_of(small, new_store(world), small.groups).by_sequence)
    planned = schedule_packs(groups, Limits(1 << 20, 1 << 40, 1, True), 1, None, 0)
    for dtype, bound, head in ((torch.float64, 1e-12, precise_head()), (torch.float32, 1e-5, contextlib.nullcontext())):
        torch.set_default_dtype(dtype)
        with head:
            ours, loss = gradient(*grouped(small, groups, planned, shared=True))
            theirs, _ = gradient(*pairwise(small, groups, planned))
        error = float((ours - theirs).norm() / theirs.norm())
        rows.append(Row(f"gradient of a step, {dtype}: difference, bound", error, bound, bound / error, 1.0))
    apart = max(abs(loss - math.log(2)), 1e-12)
    return [*rows, Row("first loss: distance from ln 2, bound", apart, 1e-6, 1e-6 / apart, 1.0)]


def reference_rows(world: World, more: list[dict[str, Any]]) -> list[Row]:
    """Count what is forwarded for the reference when a tenth of the prompts is new."""
    store, every = new_store(world), [*world.groups, *more]
    reference_of(world, store, world.groups)
    forwarded = reference_of(world, store, every).forwarded
    new, again = sum(len(row["completions"]) for row in more), 2 * sum(len(row["chosen"]) for row in every)
    what = "reference after +10% prompts: completions forwarded"
    return [
        Row(f"{what}, new ones", forwarded, new, new / forwarded, 1.0),
        Row(f"{what}, TRL's precompute", forwarded, again, again / forwarded),
    ]


def quiet(side: Callable[[World], None], world: World) -> Callable[[], None]:
    """Return a side that prints nothing."""

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            side(world)

    return run


def make_world(folder: Path, model: str | None, prompts: int) -> tuple[World, list[dict[str, Any]]]:
    """Return what is trained, and the groups of another tenth of the prompts."""
    sizes = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = DpoConfig(lora=None, learning_rate=1e-5, batch_size=BATCH)
    if model is None:
        artifact = write_model(folder / "model", LlamaConfig(vocab_size=VOCABULARY, **sizes))
    else:
        artifact = Artifact(kind="model", uri=str(locate_model(ModelSource(path=model))), digest=model)
        config = config.model_copy(update={"dtype": "bfloat16", "tokens_per_batch": 32768})
    vocabulary = AutoConfig.from_pretrained(artifact.uri).get_text_config().vocab_size
    rows = draw(math.ceil(prompts * 1.1), vocabulary)
    first = [row for row in rows if int(row["prompt_id"]) < prompts]
    return World(artifact, first, config, folder, micro_batch=8), rows[len(first) :]


def main() -> None:
    parser = options(__doc__, rounds=1)
    parser.add_argument("--prompts", type=int, default=100, help="prompts that k completions were sampled for")
    chosen = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="rs-dpo-benchmark-") as folder:
        world, more = make_world(Path(folder), chosen.model, chosen.prompts)
        facts = {"model": chosen.model or "Llama, hidden 128, 3 layers, vocabulary 1,024, random weights"}
        facts |= {"k, tau, eta": f"{K}, 1, 0.85", "prompts": f"{chosen.prompts}, {len(world.groups)} with pairs"}
        facts["pairs"] = str(sum(len(row["chosen"]) for row in world.groups))
        facts["unique completions"] = str(sum(len(row["completions"]) for row in world.groups))
        rows = [*epoch_rows(world, chosen.rounds), *batch_rows(world, chosen.rounds, facts)]
        report("Grouped DPO", facts, [*rows, *gradient_rows(world), *reference_rows(world, more)])


if __name__ == "__main__":
    main()
