r"""Answers that are the same mathematics, by math-verify: `1/2`, `0.5` and `\frac{1}{2}` are one answer.

math-verify runs in a process of its own (`math_worker.py`), which stays for the next answer; so it works in any thread,
and what takes too long is killed.
"""

import functools
import importlib.util
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Annotated

from pydantic import Field

from tasks.config.errors import ConfigurationError

COUNTS_WITH = ("tasks.rewards.programs.math_worker",)

if importlib.util.find_spec("math_verify") is None:
    raise ConfigurationError(
        f"{__name__} needs the package math-verify, which is not installed: pip install 'rs-dpo[math]'"
    )

_WORKER = Path(__file__).with_name("math_worker.py")
_ONE_AT_A_TIME = threading.Lock()


def math_answer(
    messages: list[dict],
    completion: str,
    reference_completion: str | None,
    seconds: Annotated[float, Field(gt=0, le=600)] = 10.0,
) -> float:
    """Return 1 where math-verify finds that the completion's answer is the reference's, else 0.

    ```yaml
    function: tasks.rewards.programs.math_answer:math_answer
    options: {seconds: 20}
    ```

    Args:
        messages: The prompt; unused.
        completion: The text to score: the answer in LaTeX between dollars or in a box, or a plain number or expression.
        reference_completion: The right answer, written in the same way. LaTeX needs its dollars.
        seconds: Longest time of one answer.

    Raises:
        ValueError: The prompt has no reference, or one without mathematics; or it takes too long or too much memory.
    """
    if reference_completion is None or not reference_completion.strip():
        raise ValueError("the prompt has no reference: put the answer into the column answer or completion of its row")
    is_right = json.loads(_ask(json.dumps([reference_completion, completion]), seconds))
    if is_right is None:
        raise ValueError(
            f"the reference {reference_completion[-80:]!r} has no mathematics: write LaTeX between dollars"
        )
    return float(is_right)


@functools.lru_cache(1)
def _worker(process: int) -> tuple[IO[str], IO[str], Callable[[], None]]:
    """Return stdin, stdout and the end of the process that compares: each of ours has one, forked or not."""
    worker = subprocess.Popen(
        [sys.executable, "-P", str(_WORKER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdout.readline()  # it is ready

    def end() -> None:
        worker.kill()
        worker.communicate()
        _worker.cache_clear()

    return worker.stdin, worker.stdout, end


def _ask(question: str, seconds: float) -> str:
    """Return the process's answer to a question.

    Raises:
        ValueError: It takes too long, or dies of its memory.
    """
    with _ONE_AT_A_TIME:
        questions, answers, end = _worker(os.getpid())
        print(question, file=questions, flush=True)
        if not select.select([answers], [], [], seconds)[0]:
            end()
            raise ValueError(f"math-verify takes more than seconds = {seconds:g} on this answer")
        if not (answer := answers.readline()):
            end()
            raise ValueError("math-verify died of this answer, perhaps of its memory")
        return answer
