"""The trainer's side of a job: arguments, checkpoints to the store, SIGTERM, and progress.

Imports torch and transformers, so import it inside functions only.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from tasks.config.training import FixedBatches, Lora, Training
from tasks.pipeline.jobs import Job, on_sigterm
from tasks.pipeline.progress import Progress, log
from tasks.store.artifacts import Content, Manifest, Provenance, files_digest
from tasks.store.folders import Store
from tasks.training.halving import says_what_to_lower
from tasks.training.saving import save_model
from tasks.training.trackers import event_files
from tasks.training.trained_model import CHECKPOINT, TRAINER, checkpoint_steps, discard

NOT_RESUMED_FROM = "training_args.bin"
"""A pickle that the trainer writes into each checkpoint and never reads."""
SHOWN = ("loss", "accuracy", "rewards/accuracies", "reward")
"""What a trainer logs that is shown while it trains: the loss, how often chosen is above rejected, RLOO's reward."""


class StoreCheckpoints(TrainerCallback):
    """Commits each checkpoint to the store, and deletes the earlier ones."""

    def __init__(self, job: Job) -> None:
        """Write under the job's folder of checkpoints."""
        self.store = Store(job.store)
        self.folder = job.checkpoints
        self.reports = (job.folder / CHECKPOINT, job.folder / TRAINER)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Copy the folder that the trainer has just written, and what TensorBoard has been told so far."""
        if not state.is_world_process_zero:
            return
        local = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        found = {str(path.relative_to(local)): path for path in sorted(local.rglob("*")) if path.is_file()}
        files: dict[str, Content] = {name: path for name, path in found.items() if name != NOT_RESUMED_FROM}
        files |= event_files(*self.reports)
        provenance = Provenance(stage="checkpoint", version=1, key=self.folder.rpartition("/")[2])
        manifest = Manifest(
            kind="checkpoint", digest=files_digest(files), rows=state.global_step, provenance=provenance
        )
        try:
            self.store.commit(f"{self.folder}/step-{state.global_step}", files, manifest)
        except OSError as error:
            if not isinstance(error.__cause__ or error, FileNotFoundError | FileExistsError):
                raise
            log(f"no checkpoint of step {state.global_step}: another run of this training is ahead, and deleted it")
        for step in checkpoint_steps(self.store, self.folder):
            if step < state.global_step:
                discard(self.store, f"{self.folder}/step-{step}")


class StopOnSigterm(TrainerCallback):
    """On SIGTERM, ends the optimizer step in flight, has a checkpoint saved, and stops.

    The trainer's own `enable_jit_checkpoint` waits three seconds first, may save amid a step, and tells no callback of
    what it saved.
    """

    def __init__(self) -> None:
        """Go on until told."""
        self.told = False

    def receive(self, *_: Any) -> None:
        """Take the signal, as often as it comes."""
        self.told = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop where this process, or any that trains with it, was told: all at the same step."""
        if args.world_size > 1:
            told = torch.tensor(int(self.told), device=args.device)
            torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
            self.told = bool(told)
        if self.told:
            control.should_log = control.should_save = control.should_training_stop = True


class ReportProgress(TrainerCallback):
    """Shows how far a training is, and its loss."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin to count at the step that the training begins with."""
        self.progress = Progress("training steps", state.max_steps, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show the step."""
        self.progress.move_to(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Show what matters of the last steps; the tokens are those since the training went on."""
        found = {name: value for name, value in (logs or {}).items() if value is not None}  # of no completion
        note = ", ".join(f"{name} {float(found[name]):.4g}" for name in SHOWN if name in found)
        self.progress.move_to(state.global_step, note or None, int(found.get("num_tokens", 0)))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End."""
        self.progress.close()


def trainer_arguments(job: Job, config: Training) -> dict[str, Any]:
    """Return the arguments that TRL's trainer configurations have in common."""
    return {
        "output_dir": str(job.folder / TRAINER),
        "run_name": run_name(job),
        "learning_rate": config.learning_rate,
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "warmup_steps": config.warmup_ratio,
        "lr_scheduler_type": config.scheduler,
        "seed": config.seed,
        "save_strategy": "steps",
        "save_steps": config.save_steps,
        "save_total_limit": 1,
        "logging_steps": config.logging_steps,
        "bf16": config.dtype == "bfloat16",
        "fp16": config.dtype == "float16",
        "gradient_checkpointing": False,
        "report_to": "none",
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "disable_tqdm": True,
        "max_length": None,
        **config.extra,
    }


def run_name(job: Job) -> str:
    """Return what trackers call the training: its stage and the beginning of its key, as the store does."""
    stage, key = job.checkpoints.split("/")[-2:]
    return f"{stage} {key[:12]}"


def fixed_batches(config: FixedBatches) -> dict[str, Any]:
    """Return the arguments that give every forward pass the same number of examples."""
    micro_batch = min(config.micro_batch_size, max(1, config.batch_size // config.devices))
    accumulated = max(1, config.batch_size // (micro_batch * config.devices))
    return {"per_device_train_batch_size": micro_batch, "gradient_accumulation_steps": accumulated}


def lora_config(lora: Lora | None, task_type: str, new: list[str] | None = None) -> Any:
    """Return peft's configuration, or None.

    Args:
        lora: The section's adapters.
        task_type: peft's name of what is trained.
        new: Modules that no model has trained yet: they are trained whole, and stored with the adapter.
    """
    from peft import LoraConfig

    if lora is None:
        return None
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type=task_type,
        modules_to_save=new,
    )


def callbacks(job: Job) -> list[TrainerCallback]:
    """Return the callbacks of every training stage."""
    return [StoreCheckpoints(job), ReportProgress()]


def train(trainer: Trainer, checkpoint: str | None) -> None:
    """Train from a checkpoint or the start to the end, or to SIGTERM, which then has its ordinary effect."""
    if checkpoint is not None and _is_at_the_end(checkpoint):  # else the trainer would go one step too far
        trainer.args.max_steps, trainer.args.num_train_epochs = -1, 0
    stop = StopOnSigterm()
    trainer.add_callback(stop)
    try:
        with on_sigterm(stop.receive):
            trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        if stop.told:
            signal.raise_signal(signal.SIGTERM)  # Prefect ends the flow run, another process dies of it
            sys.exit(128 + signal.SIGTERM)


def _is_at_the_end(checkpoint: str) -> bool:
    state = TrainerState.load_from_json(f"{checkpoint}/{TRAINER_STATE_NAME}")
    return bool(state.global_step >= state.max_steps)


def run_trainer(trainer: Trainer, job: Job, config: Training) -> None:
    """Train from the job's checkpoint, or the start, and write the model, adapters merged, and the log."""
    trainer.remove_callback(PrinterCallback)
    checkpoint = job.folder / CHECKPOINT
    with says_what_to_lower(config):
        train(trainer, str(checkpoint) if checkpoint.exists() else None)
    model = trainer.accelerator.unwrap_model(trainer.model)
    weights = trainer.accelerator.get_state_dict(trainer.model)  # whole also where the model is sharded
    if not trainer.is_world_process_zero():
        return
    save_model(model, weights, trainer.processing_class, job, config)
    (job.folder / "log.json").write_text(json.dumps(trainer.state.log_history))
