"""The quickstart: write a small world and a model that knows nothing, then run RS-DPO on them.

$ python -m flows.quickstart
"""

if __name__ == "__main__":  # what is typed wrong is told before the imports below, which take seconds
    from flows.arguments import QUICKSTART, check_run_command

    check_run_command(QUICKSTART)


import shlex
import sys
import time

from prefect import flow

from flows.arguments import QUICKSTART as CONFIG
from flows.command_line import main
from flows.config_files import load_config
from flows.rs_dpo import rs_dpo
from tasks.examples.world import write_world
from tasks.models.loading import model_folder
from tasks.store.artifacts import Artifact

WORLD = ".rsdpo/world"


@flow(name="quickstart")
def quickstart(config: str = CONFIG, overrides: list[str] | None = None, seed: int = 0) -> dict[str, Artifact]:
    """Write the world and run RS-DPO on it."""
    write_world(WORLD, seed)
    artifacts: dict[str, Artifact] = rs_dpo(**load_config(config, overrides or []).sections())
    return artifacts


def print_next_steps(aligned: Artifact, seconds: float) -> None:
    """Print where the aligned model is and the commands that chat with it."""
    folder = shlex.quote(str(model_folder(aligned)))
    tool = shlex.quote(sys.executable.rpartition("/")[0])
    print(f"\nDone in {seconds:.0f} s. The aligned model, a plain Hugging Face folder:\n  {folder}")
    print("Chat with it (the first command serves, the second, in another terminal, talks):")
    print(f"  {tool}/transformers serve {folder} --host 127.0.0.1")
    print(f"  {tool}/transformers chat {folder}")


if __name__ == "__main__":
    start = time.monotonic()
    artifacts = main(rs_dpo, [CONFIG, *sys.argv[1:]], prepare=lambda: write_world(WORLD))
    if artifacts and "prediction" not in artifacts:
        print_next_steps(artifacts["aligned"], time.monotonic() - start)
