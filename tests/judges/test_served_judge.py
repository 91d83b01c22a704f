"""A judge of one's own: vLLM's server over real HTTP with the story model, whose greedy answer is known."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from processes import wait_until_gone
from runs import ROOT

from flows.serve_judge import check_address, serving, wait
from tasks.config.errors import ConfigurationError
from tasks.config.judges import JudgeConfig
from tasks.judges.judge import Judge
from tasks.judges.questions import Judged, Question, user
from tasks.store.folders import Store

SMALL = ("--enforce-eager", "--max-model-len=512")
TEMPLATE = "--chat-template={{ bos_token }}{% for message in messages %}{{ message.content }}{% endfor %}"
"""The story model has none."""
SERVE = """
import sys
from pathlib import Path
from flows.serve_judge import serving, wait

with serving(Path(sys.argv[1]), "story", sys.argv[2], tuple(sys.argv[3:])) as server:
    print("up", flush=True)
    wait(server, None)
"""


def free_address() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def test_addresses_that_are_refused(monkeypatch):
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    for address in ("8400", ":8400", "127.0.0.1:http"):
        with pytest.raises(ConfigurationError, match="must be a host and a port"):
            check_address(address)
    with pytest.raises(ConfigurationError, match="can be reached from elsewhere: set VLLM_API_KEY"):
        check_address("0.0.0.0:8400")
    check_address("127.0.0.1:8400")
    check_address("[::1]:8400")
    monkeypatch.setenv("VLLM_API_KEY", "mine")
    check_address("0.0.0.0:8400")


def test_a_server_that_ends_by_itself():
    ended = pytest.raises(ConfigurationError, match="vllm serve ended with status 7")
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"]) as server, ended:
        wait(server, None)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as server:
        wait(server, 0.0)
        server.kill()


@pytest.fixture(scope="module")
def served(test_data: Path) -> Iterator[JudgeConfig]:
    address = free_address()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("VLLM_API_KEY", "our-own-key")
        patch.setenv("JUDGE_KEY", "our-own-key")
        with serving(test_data / "stories260k", "story", address, (*SMALL, TEMPLATE)) as server:
            children = psutil.Process(server.pid).children(recursive=True)
            yield JudgeConfig(
                model="story",
                base_url=f"http://{address}/v1",
                api_key_variable="JUDGE_KEY",
                max_answer_tokens=24,
                max_unreadable=1.0,
                temperature=0,
            )
    wait_until_gone(children, 20)


@pytest.mark.slow
def test_a_greedy_answer_is_the_known_one_and_is_asked_for_once(served, tmp_path):
    question = Question(user("Once upon a time,"), "", str.strip, "the story")
    store = Store(str(tmp_path))
    for asked in (1, 0):
        judge = Judge(served, store)
        (story,) = judge.ask([question])
        assert story.startswith("there was a little girl named Lily. She loved to play outside")
        figures = judge.figures()
        assert figures["asked"] == asked
        assert figures["models"] == {"story": 1}
        assert figures["completion_tokens"] == 24 * asked


@pytest.mark.slow
def test_a_model_that_gives_no_verdict(served, tmp_path):
    config = served.model_copy(update={"template": "{question} {answer}"})
    judge = Judge(config, Store(str(tmp_path)))
    asked = [{"role": "user", "content": "Once upon a time"}]
    assert np.isnan(judge.rewards([Judged(asked, f"there were {n} cats.") for n in range(8)])).all()
    assert (judge.stats.asked, judge.stats.asked_again, judge.stats.unreadable) == (16, 8, 8)


@pytest.mark.slow
def test_what_the_server_refuses(served, tmp_path, monkeypatch):
    judge = Judge(served, Store(str(tmp_path)))
    with pytest.raises(ConfigurationError, match=r"answer 1 .*refuses with status 400: .*context length is 512"):
        judge.rewards([Judged(user("Once upon a time " * 200), "")])
    other = served.model_copy(update={"model": "gpt"})
    with pytest.raises(ConfigurationError, match=r"status 404: .*check judge.model, and judge.base_url"):
        Judge(other, Store(str(tmp_path))).rewards([Judged(user("Hi"), "")])
    monkeypatch.setenv("JUDGE_KEY", "another")
    with pytest.raises(ConfigurationError, match=r"status 401: .*set JUDGE_KEY to a key that holds"):
        Judge(served, Store(str(tmp_path))).rewards([Judged(user("Hello"), "")])


@pytest.mark.slow
def test_a_served_judge_dies_with_a_killed_flow(test_data):
    """SIGKILL of the process that serves: no child keeps the GPU."""
    address = free_address()
    command = [sys.executable, "-c", SERVE, str(test_data / "stories260k"), address, *SMALL, TEMPLATE]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
    flow = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert flow.stdout is not None
    assert any(line == "up\n" for line in flow.stdout)
    children = psutil.Process(flow.pid).children(recursive=True)
    assert len(children) > 1
    flow.kill()
    flow.communicate()
    wait_until_gone(children)
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://{address}/health", trust_env=False)
