"""A real chat model, offline: fetch SmolLM2-135M-Instruct, write instructions with constraints, run RS-DPO on them.

$ python -m flows.chat
"""

if __name__ == "__main__":  # what is typed wrong is told before the imports below, which take seconds
    from flows.arguments import CHAT, check_run_command

    check_run_command(CHAT)


import sys
import time

from rich.console import Console
from rich.table import Table

from flows.arguments import CHAT as CONFIG
from flows.command_line import main
from flows.rs_dpo import rs_dpo
from tasks.examples.instructions import write_instructions
from tasks.examples.kept import kept_rows, read_kept
from tasks.examples.smollm2 import fetch_model, imitates_bfloat16
from tasks.store.artifacts import Artifact

FOLDER = ".rsdpo/chat"
RESAMPLES = 10_000


def prepare() -> None:
    """Write the instructions, and fetch the model where it is not there.

    Raises:
        ConfigurationError: The model cannot be fetched.
    """
    write_instructions(FOLDER)
    fetch_model(FOLDER)
    if imitates_bfloat16():
        told = (
            "This processor has neither AVX512_BF16 nor AMX: the reward model is trained in float32, which takes longer"
        )
        print(told, file=sys.stderr)


def print_kept(artifacts: dict[str, Artifact]) -> None:
    """Print which constraints the policies keep."""
    found = read_kept(artifacts["evaluation"], artifacts["held_out"])
    table = Table("constraint", "prompts", "sft", "aligned", "gain", title="Constraints kept on held-out prompts")
    for row in kept_rows(found, "sft", "aligned", RESAMPLES, seed=0):
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def print_next_steps(seconds: float) -> None:
    """Print how to try the result by hand."""
    print(f"\nDone in {seconds:.0f} s. Ask both policies something, or give no question for a prompt line:")
    print('  .venv/bin/python -m flows.ask .rsdpo "Describe the sea in one sentence of at most 20 words."')


if __name__ == "__main__":
    start = time.monotonic()
    precision = ["--set", "reward_model.dtype=float32"] if imitates_bfloat16() else []
    artifacts = main(rs_dpo, [CONFIG, *precision, *sys.argv[1:]], prepare=prepare)
    if artifacts and "prediction" not in artifacts:
        print_kept(artifacts)
        print_next_steps(time.monotonic() - start)
