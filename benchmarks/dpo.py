"""Grouped DPO against TRL's `DPOTrainer` on the same pairs: an epoch, a step's gradient, rows forwarded, the reference.

Prompts of about 175 tokens, k = 16 completions of about 256, rewards spread as in the paper: 22.5% of the prompts with
standard deviation 0.778, the rest 0.359; tau = 1, eta = 0.85. An epoch begins with the model on disk and ends with the
trained one there; the reference's log-probabilities are in it. TRL has the best of its settings that were tried:
batches of like length, no gradient checkpointing, a reference model beside the policy.

On a GPU an epoch is its passes alone, the models in memory: of a billion weights, disks would tell more than trainers
do. There, and with `--passes`, TRL's loss on pairs without padding is compared too (`_trl.py`: TRL 1.16 has none).

    python benchmarks/dpo.py [--device cuda] [--model M | --size tiny|1b] [--prompts 100] [--rounds 1] [--passes]
"""

import contextlib
import io
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))

from _grouped import PASSES, Clock, new_store, our_epoch, our_passes, packed_trainer, reference_of
from _models import SIZES, add_size, llama
from _pairs import K, World, as_groups, draw, write_model
from _side_by_side import Row, faster, in_turns, options, parse, peak, report, take_turns
from _trl import BATCH, FlatTrainer, attention, heeds_padding_free, trl_arguments, trl_epoch, trl_trainer
from accelerate.utils import send_to_device
from datasets import Dataset
from pairwise import PairwiseTrainer, gradient, pair_rows, precise_head
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GPTNeoXConfig
from transformers.utils import logging

from tasks.config.sections import ModelSource
from tasks.config.training import DpoConfig
from tasks.models.locate import locate_model
from tasks.store.artifacts import Artifact
from tasks.training.packs import DpoExample, Limits, PackSchedule, schedule_packs


def grouped(world: World, groups: list[DpoExample], planned: PackSchedule, shared: bool) -> tuple[Any, list[Any]]:
    """Return our trainer and its batches."""
    trainer = packed_trainer(world, groups, planned, shared)
    return trainer, [on(trainer, trainer.data_collator([{"pack": number}])) for number in range(len(planned.packs))]


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
    """Compare an epoch from disk to disk."""
    for side in (our_epoch, trl_epoch):  # what a process does once, imports above all, counts for neither
        quiet(side, world._replace(groups=world.groups[:2]))()
    seconds = take_turns(quiet(our_epoch, world), quiet(trl_epoch, world), rounds)
    return [faster("DPO epoch, reference included", seconds, 5.0 if world.config.dtype == "float32" else 3.0)]


def pass_rows(world: World, rounds: int, facts: dict[str, Any]) -> list[Row]:
    """Compare the passes of an epoch: ours, TRL's with padding, and TRL's loss without any."""
    sides: dict[str, Callable[[World], Any]] = {
        "ours": our_passes,
        "TRL, padded": lambda own: trl_trainer(own, save_strategy="no").train(),
        f"TRL's loss without padding ({attention(world)})": lambda own: trl_trainer(
            own, FlatTrainer, save_strategy="no"
        ).train(),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    memory = dict.fromkeys(sides, 0.0)

    def turn(name: str, own: World) -> None:
        clock = Clock()
        with clock.within(*PASSES):
            quiet(sides[name], own)()
        seconds[name].append(clock.seconds)
        memory[name] = max(memory[name], peak())

    for name in sides if world.device == "cuda" else ():  # kernels are compiled in the first steps
        turn(name, world._replace(groups=world.groups[:2]))
        seconds[name].clear()
    in_turns({name: lambda name=name: turn(name, world) for name in sides}, rounds)
    facts["TRL's padding_free"] = "heeded" if heeds_padding_free(world) else "accepted and ignored: it pads"
    if peak():
        facts["peak of GPU memory"] = ", ".join(f"{name} {size:.1f} GB" for name, size in memory.items())
    ours, *others = ((name, statistics.median(own)) for name, own in seconds.items())
    pairs = sum(len(row["chosen"]) for row in world.groups)
    facts["pairs a second"] = ", ".join(f"{name} {pairs / median:.1f}" for name, median in (ours, *others))
    return [faster(f"DPO epoch, passes alone, against {name}", (ours[1], median)) for name, median in others]


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
    vocabulary = AutoConfig.from_pretrained(world.model.uri).get_text_config().vocab_size
    small = small._replace(model=write_model(world.folder / "neox", GPTNeoXConfig(vocab_size=vocabulary, **sizes)))
    groups = as_groups(small.groups, reference_of(small, new_store(small), small.groups).by_sequence)
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
    assert new, "a tenth of so few prompts has no pairs: raise --prompts"
    what = "reference after +10% prompts: completions forwarded"
    return [
        Row(f"{what}, new ones", forwarded, new, new / forwarded, 1.0),
        Row(f"{what}, TRL's precompute", forwarded, again, again / forwarded),
    ]


def quiet(side: Callable[[World], Any], world: World) -> Callable[[], None]:
    """Return a side that prints nothing."""

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            side(world)

    return run


def make_world(folder: Path, chosen: Any) -> tuple[World, list[dict[str, Any]]]:
    """Return what is trained, and the groups of another tenth of the prompts."""
    on_gpu = chosen.device == "cuda"
    config = DpoConfig(lora=None, learning_rate=1e-5, batch_size=BATCH)
    if on_gpu:
        config = config.model_copy(update={"dtype": "bfloat16", "tokens_per_batch": 16384})
    if chosen.model is None:
        artifact = write_model(folder / "model", llama(chosen.size), config.dtype, chosen.device)
    else:
        artifact = Artifact(kind="model", uri=str(locate_model(ModelSource(path=chosen.model))), digest=chosen.model)
    vocabulary = AutoConfig.from_pretrained(artifact.uri).get_text_config().vocab_size
    rows = draw(math.ceil(chosen.prompts * 1.1), vocabulary, chosen.tokens)
    first = [row for row in rows if int(row["prompt_id"]) < chosen.prompts]
    return World(artifact, first, config, folder, micro_batch=8, device=chosen.device), rows[len(first) :]


def main() -> None:
    parser = options(__doc__, rounds=1)
    parser.add_argument("--prompts", type=int, help="prompts that k completions were sampled for: 100, or 300 on a GPU")
    parser.add_argument("--passes", action="store_true", help="compare the passes of an epoch, and nothing else")
    parser.add_argument("--tokens", type=int, default=256, help="mean tokens of a completion")
    add_size(parser)
    chosen = parse(parser)
    on_gpu = chosen.device == "cuda"
    chosen.size = chosen.size or ("1b" if on_gpu else "tiny")
    chosen.prompts = chosen.prompts or (300 if on_gpu else 100)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="rs-dpo-benchmark-") as folder:
        world, more = make_world(Path(folder), chosen)
        shape = f"Llama, {SIZES[chosen.size][1]}, vocabulary {SIZES[chosen.size][0]:,}, random weights"
        facts: dict[str, Any] = {"model": chosen.model or shape, "type": f"{world.config.dtype}, all weights trained"}
        facts |= {"k, tau, eta": f"{K}, 1, 0.85", "prompts": f"{chosen.prompts}, {len(world.groups)} with pairs"}
        facts["pairs"] = str(sum(len(row["chosen"]) for row in world.groups))
        facts["unique completions"] = str(sum(len(row["completions"]) for row in world.groups))
        if on_gpu or chosen.passes:
            rows = pass_rows(world, chosen.rounds, facts)
        else:
            rows = [*epoch_rows(world, chosen.rounds), *batch_rows(world, chosen.rounds, facts)]
        if not chosen.passes:
            rows += [*gradient_rows(world), *reference_rows(world, more)]
        report("Grouped DPO", facts, rows, chosen)


if __name__ == "__main__":
    main()
