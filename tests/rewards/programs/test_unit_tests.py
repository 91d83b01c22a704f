"""Code that passes tests, and code that would like to have passed."""

import json

import pytest

from tasks.config.errors import ConfigurationError
from tasks.rewards.programs.unit_tests import unit_tests

ADD = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0", "import math\nassert math.isclose(add(0.1, 0.2), 0.3)"]
RIGHT = "def add(a, b):\n    return a + b\n"


def score(code: str, tests: list = ADD, **options) -> float:
    metadata = {"metadata": json.dumps({"tests": tests})}
    text = f"Here it is:\n\n```python\n{code}\n```\nIt adds."
    return unit_tests([], text, metadata, **{"run_untrusted_code": True, "seconds": 20, **options})


def test_the_share_of_tests_passed():
    assert score(RIGHT) == 1
    assert score("def add(a, b):\n    return abs(a) + abs(b)") == pytest.approx(2 / 3)
    assert score("def add(a, b):\n    return abs(a) + abs(b)", score="all") == 0
    assert score(RIGHT, score="all") == 1
    assert score("def sub(a, b):\n    return a - b") == 0
    assert score("def add(a, b) return") == 0


def test_classes_prints_and_modules_of_a_program():
    code = """
        import dataclasses, pickle, typing

        @dataclasses.dataclass
        class Point:
            x: int
            others: "typing.List[int]"

        print("made", flush=True)
        if __name__ == "__main__":
            raise SystemExit(1)
    """
    program = "\n".join(line[8:] for line in code.splitlines())
    assert score(program, ["assert pickle.loads(pickle.dumps(Point(1, []))).x == 1"]) == 1


CHEATS = {
    "exit": "exit(0)",
    "sys.exit": "import sys; sys.exit(0)",
    "os._exit": "import os; os._exit(0)",
    "prints": "print('PASSED', 'ok', '3', 'True', '1.0')\nexit(0)",
    "exits at the call": "def add(a, b):\n    raise SystemExit(0)",
    "no exec": "import builtins\nbuiltins.exec = lambda *a: None",
    "no assertion": "import builtins\nbuiltins.AssertionError = SystemExit\ndef add(a, b): return 4",
    "at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef add(a, b): return 4",
    "hook": "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\ndef add(a, b): return 4",
    "other program": "import os\nos.execv('/bin/true', ['true'])",
    "thread": "import threading, os\nthreading.Timer(0.01, os._exit, [0]).start()\ndef add(a, b):\n  while 1: pass",
    "never ends": "while True: pass",
}


@pytest.mark.parametrize("code", CHEATS.values(), ids=CHEATS)
def test_what_passes_no_test_gets_nothing(code):
    assert score(code, ADD[:1], seconds=2) == 0


def test_programs_that_read_and_print():
    tests = [{"input": "1 2\n", "output": "3\n"}, {"input": "5 -7\n", "output": "-2"}]
    assert score("a, b = map(int, input().split())\nprint(a + b)", tests) == 1
    assert score("import sys\nprint(sum(map(int, sys.stdin.read().split())), ' ')", tests) == 1
    assert score("print(sum(map(int, open(0).read().split())))\nexit(0)", tests) == 1
    assert score("if __name__ == '__main__':\n    print(3)", tests) == 0.5
    assert score("print(3)\nraise SystemExit(1)", tests) == 0
    assert score("print('3\\n-2')", tests) == 0


def test_long_code_and_input():
    assert score(f"{RIGHT}# {'x' * 300_000}", ADD[:1]) == 1
    numbers = "1 " * 300_000
    assert score("print(sum(map(int, input().split())))", [{"input": numbers, "output": "300000"}]) == 1


def test_a_completion_without_code_gets_nothing():
    metadata = {"metadata": json.dumps({"tests": ADD})}
    for text in ("", RIGHT, "```bash\nls\n```", f"```python\n{RIGHT}"):
        assert unit_tests([], text, metadata, run_untrusted_code=True) == 0


def test_nothing_runs_unless_it_is_allowed():
    with pytest.raises(
        ConfigurationError, match=r"this reward would run, on this machine, code .*run_untrusted_code: true"
    ):
        score(RIGHT, run_untrusted_code=False)


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({}, "metadata = 'None' of a prompt must be JSON text of its tests"),
        ({"metadata": "{"}, "must be JSON text of its tests"),
        ({"metadata": '{"tests": []}'}, "must be JSON text of its tests"),
        ({"metadata": '["assert True"]'}, "must be JSON text of its tests"),
        ({"metadata": '{"tests": ["assert True", "assert ("]}'}, r"test 2 = 'assert \(' is no Python: "),
        ({"metadata": '{"tests": [{"input": "1"}]}'}, "must be Python, or have the texts input and output"),
        (
            {"metadata": '{"tests": [{"input": 1, "output": "2"}]}'},
            "must be Python, or have the texts input and output",
        ),
    ],
)
def test_a_prompt_without_tests_is_not_scored(metadata, why):
    with pytest.raises(ValueError, match=why) as found:
        unit_tests([], f"```\n{RIGHT}```", metadata, run_untrusted_code=True)
    assert not isinstance(found.value, ConfigurationError)
