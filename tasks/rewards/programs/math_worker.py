"""The process that compares mathematics: it reads a reference and a completion as a JSON line, and answers with one.

The answer is `true`, `false`, or `null` where the reference is no mathematics. A first line says that it is ready.
math-verify can end what takes long by signals alone, which the main thread gets alone, and which a power tower of whole
numbers does not heed. So it is given all the time it wants, and the caller kills this process. Run by its path.
"""

import json
import os
import resource
import sys

from math_verify import parse, verify

MEMORY = 4 << 30


def main() -> None:
    """Answer until stdin ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what a library prints is no answer
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            reference, completion = (parse(text, parsing_timeout=None) for text in json.loads(line))
            is_right = verify(reference, completion, timeout_seconds=None) if reference else None
            print(json.dumps(is_right), file=answers, flush=True)


if __name__ == "__main__":
    main()
