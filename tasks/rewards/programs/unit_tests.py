r"""Code that passes tests. What a model wrote is run, in a sandbox: see `sandbox.py`.

The code is the completion's last fenced block. The tests are the prompt's metadata, JSON text:
`{"tests": ["assert add(1, 2) == 3", {"input": "1 2\n", "output": "3\n"}]}`. A test that is a text is Python that runs
after the code and passes if nothing is raised. One with input and output runs the code as a program; it passes if the
exit status is 0 and the output is the expected one, white space at the ends of lines aside.

Each test has a process of its own. One in Python passes only if the last thing that its process says is a mark, drawn
at random for it: `exit(0)` and a printed "ok" pass nothing. Two tricks are not seen: results that claim to equal
everything, and code that searches its caller's frames for the mark. Tests with input and output know neither: they are
judged outside.
"""

import json
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from tasks.config.errors import ConfigurationError
from tasks.rewards.programs.blocks import last_block
from tasks.rewards.programs.sandbox import Limits, run_sandboxed

COUNTS_WITH = ("tasks.rewards.programs.blocks", "tasks.rewards.programs.sandbox", "tasks.rewards.programs.inside")

_RUN = """
import json, os, sys, types

def main(run=exec, write=os.write, leave=os._exit):
    order = json.load(sys.stdin)
    program = compile(order["program"], "program", "exec")
    test = None if order["test"] is None else compile(order["test"], "test", "exec")
    with open("input", "w+b") as file:
        os.unlink("input")
        file.write(order["input"].encode())
        file.seek(0)
        os.dup2(file.fileno(), 0)
    sys.stdin = open(0)
    name = "__main__" if test is None else "program"
    module = sys.modules[name] = types.ModuleType(name)
    run(program, module.__dict__)
    if test is not None:
        run(test, module.__dict__)
        write(1, order["mark"].encode())
        leave(0)

main()
"""


def _allowed(run_untrusted_code: bool) -> bool:
    """Return true.

    Raises:
        ValueError: It is false.
    """
    if not run_untrusted_code:
        raise ValueError(
            "this reward would run, on this machine, code that a model wrote. It runs in a sandbox without network and "
            "files, with limits; a fault in the kernel would still let it out. To allow that: run_untrusted_code: true"
        )
    return True


Seconds = Annotated[float, Field(gt=0, le=600)]
Megabytes = Annotated[int, Field(ge=1)]


def unit_tests(
    messages: list[dict],
    completion: str,
    metadata: Mapping[str, Any],
    *,
    run_untrusted_code: Annotated[bool, AfterValidator(_allowed)] = False,
    score: Literal["share", "all"] = "share",
    seconds: Seconds = 10.0,
    memory_mb: Annotated[int, Field(ge=64)] = 512,
) -> float:
    """Return the share of a prompt's tests that the code of a completion passes, or 1 only where it passes all.

    ```yaml
    function: tasks.rewards.programs.unit_tests:unit_tests
    options: {run_untrusted_code: true, score: all, seconds: 5}
    ```

    Args:
        messages: The prompt; unused.
        completion: The text to score; one without a fenced block of Python gets 0.
        metadata: The prompt's, with its tests.
        run_untrusted_code: Must be true: says that you know what this does.
        score: The share of tests that pass, or all of them or nothing.
        seconds: Wall time and CPU time of each test.
        memory_mb: Memory of each test.

    Raises:
        ConfigurationError: Running code was not allowed, or this machine gives no sandbox.
        ValueError: The prompt has no tests, or some that are none.
    """
    try:
        _allowed(run_untrusted_code)
    except ValueError as error:
        raise ConfigurationError(f"run_untrusted_code = {run_untrusted_code!r}: {error}") from error
    tests = read_tests(metadata)
    if (program := last_block(completion, ["python", "py", "python3"])) is None:
        return 0.0
    limits = Limits(seconds=seconds, cpu_seconds=int(seconds) + 1, memory_mb=memory_mb)
    passed = 0
    for test in tests:
        passed += (is_passed := _passes(program, test, limits))
        if score == "all" and not is_passed:
            return 0.0
    return passed / len(tests)


def read_tests(metadata: Mapping[str, Any]) -> list[str | dict[str, str]]:
    """Return the tests of a prompt.

    Raises:
        ValueError: There are none, or one is neither Python nor an input with its output.
    """
    text = metadata.get("metadata")
    try:
        given = json.loads(text) if isinstance(text, str) else None
    except json.JSONDecodeError:
        given = None
    tests = given.get("tests") if isinstance(given, dict) else None
    if not isinstance(tests, list) or not tests:
        raise ValueError(
            f"metadata = {str(text)[:80]!r} of a prompt must be JSON text of its tests, such as "
            '{"tests": ["assert add(1, 2) == 3"]}: write it into the column metadata of the prompts'
        )
    for number, test in enumerate(tests, 1):
        _check(number, test)
    return tests


def _check(number: int, test: Any) -> None:
    """Refuse a test that no code could pass."""
    if isinstance(test, str):
        try:
            compile(test, "test", "exec")
        except (SyntaxError, ValueError) as error:
            raise ValueError(f"test {number} = {test[:80]!r} is no Python: {error}") from error
    elif (
        not isinstance(test, dict)
        or set(test) != {"input", "output"}
        or not all(isinstance(value, str) for value in test.values())
    ):
        raise ValueError(f"test {number} = {str(test)[:80]!r} must be Python, or have the texts input and output")


def _passes(program: str, test: str | dict[str, str], limits: Limits) -> bool:
    """Return whether a program passes one test."""
    mark = secrets.token_hex(16)
    order: dict[str, str | None] = {"program": program, "mark": mark}
    order |= {"test": test, "input": ""} if isinstance(test, str) else {"test": None, "input": test["input"]}
    outcome = run_sandboxed(_RUN, json.dumps(order), limits)
    if outcome.returncode != 0:
        return False
    return outcome.output.endswith(mark) if isinstance(test, str) else _lines(outcome.output) == _lines(test["output"])


def _lines(text: str) -> list[str]:
    """Return the lines of a text without the white space that nobody sees."""
    return [line.rstrip() for line in text.rstrip().splitlines()]
