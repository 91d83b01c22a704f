"""Pairs of prompts that DPO does not train on: how often the policy in training ranks them right, and by how much.

Imports torch and transformers, so import it inside functions only.
"""

from typing import Any

import torch
from accelerate.utils import send_to_device
from transformers import TrainerCallback

from tasks.training.dpo_trainer import PackedDPOTrainer
from tasks.training.halving import FittingPacks
from tasks.training.pack_collator import PackCollator
from tasks.training.packs import Pack

TIMES = 10
"""How often a training is measured, about evenly, and at its end."""


class MeasureHeldOut(TrainerCallback):
    """Writes `held_out/accuracy` and `held_out/margin` into the log (arXiv:2402.10038 shows both against training)."""

    def __init__(self, trainer: PackedDPOTrainer, collator: PackCollator) -> None:
        """Take the trainer whose policy is measured, and the packs of the held-out pairs, all to be forwarded."""
        self.trainer, self.packs = trainer, FittingPacks(collator, trainer.step.packs.alone)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure at the steps that divide the training into `TIMES` parts."""
        every = max(1, state.max_steps // TIMES)
        if state.global_step % every == 0 or state.global_step == state.max_steps:
            state.log_history.append({"step": state.global_step, **self.measure()})

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Return the share of held-out pairs with a margin above 0 (at 0: half), and the mean margin in nats.

        The margin is beta (log pi(y_w|x)/pi_ref(y_w|x) - log pi(y_l|x)/pi_ref(y_l|x)); without a reference the
        difference of what the trainer takes for rewards. Pairs weigh what they weigh in the training.
        """
        model = self.trainer.model_wrapped
        model.eval()
        figures = [self.packs.add_up(pack, self._measure_pack) for pack in self.packs.collator.packs]
        model.train()
        accuracy, margin = sum(figures[1:], figures[0]).tolist()
        return {"held_out/accuracy": accuracy, "held_out/margin": margin}

    def _measure_pack(self, pack: Pack) -> torch.Tensor:
        """Return a pack's part of accuracy and margin, (2,) float64."""
        trainer = self.trainer
        inputs = send_to_device(self.packs.collator.lay_out_pack(pack), trainer.accelerator.device)
        with trainer.compute_loss_context_manager():
            pairs, outputs = trainer._forward_pack(trainer.model_wrapped, inputs)
        values = trainer.pair_values(inputs, pairs, outputs.log_probs.double())
        margins = trainer.margins(values)
        accuracy = values.mean((margins > 0) + 0.5 * (margins == 0))
        return pack.weight * torch.stack([accuracy.double(), values.mean(margins)])
