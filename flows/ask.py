"""Ask a run's policies by hand: what the SFT policy says to a prompt, and what the aligned one says.

python -m flows.ask STORE "What is the sea?"
python -m flows.ask STORE          # a prompt line; an empty line ends it
"""

if __name__ == "__main__":  # a wrong flag is told before the imports below, which take seconds
    from flows.arguments import ask_parser

    ask_parser().parse_args()


import sys
from collections.abc import Iterable, Iterator
from typing import Any

from flows.arguments import ask_parser
from flows.command_line import ends_with_a_message
from tasks.config.errors import ConfigurationError
from tasks.config.settings import Decoding
from tasks.lm.context import context_length
from tasks.lm.tokens import encode_prompt
from tasks.models.loading import model_folder, model_tokenizer, trusts_remote_code
from tasks.publishing.facts import choose_run
from tasks.sampling.engines import open_engine
from tasks.store.artifacts import Artifact, DamagedArtifactError
from tasks.store.folders import Store
from tasks.store.runs import Run

POLICIES = {"sft": "policy", "aligned": "aligned"}
"""What each policy is called, here and in a run's record."""


class Answerer:
    """One policy, loaded, with the settings that its run sampled with."""

    def __init__(self, policy: Artifact, config: dict[str, Any], seed: int) -> None:
        """Load the policy."""
        given = {name: config["sampling"][name] for name in Decoding.model_fields if name in config["sampling"]}
        decoding = Decoding(**given | {"k": 1, "seed": seed, "engine": "transformers", "extra": {}})
        folder = model_folder(policy)
        self.system, self.seed = config["data"].get("system_prompt"), seed
        self.tokenizer = model_tokenizer(policy)
        self.room = context_length(folder) - decoding.max_new_tokens
        self.engine = open_engine(folder, decoding, context_length(folder), trusts_remote_code(policy))

    def answer(self, question: str) -> str:
        """Return one completion.

        Raises:
            ConfigurationError: The question leaves no room for an answer.
        """
        system = [{"role": "system", "content": self.system}] if self.system else []
        ids = encode_prompt(self.tokenizer, [*system, {"role": "user", "content": question}])
        if len(ids) > self.room:
            raise ConfigurationError(
                f"the question has {len(ids)} tokens, at most {self.room} fit before an answer: shorten it"
            )
        self.engine.add(0, ids, self.seed, 1)
        [(_, [sample])] = self.engine.step()
        return sample.completion


def open_policies(store: Store, run: Run, seed: int) -> dict[str, Answerer]:
    """Load both policies of a run.

    Raises:
        ConfigurationError: The run's record, of an earlier release, has no configuration.
        DamagedArtifactError: The store no longer has one.
    """
    if not run.config:
        raise ConfigurationError(f"the record of run {run.id} has no configuration: run again, and ask that run")
    return {name: Answerer(_stored(store, run, made), run.config, seed) for name, made in POLICIES.items()}


def _stored(store: Store, run: Run, name: str) -> Artifact:
    if (policy := store.find(run.artifacts[name])) is None:
        raise DamagedArtifactError(
            f"{store.uri}/{run.artifacts[name]} is missing or damaged: ask another run with --run"
        )
    return policy


def typed_lines() -> Iterator[str]:
    """Yield what a person types, line by line, up to an empty line or the end of the input."""
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line


def main(arguments: list[str] | None = None) -> None:
    """Print the policies' answers; exit as `flows.rs_dpo` does where something is wrong."""
    options = ask_parser().parse_args(arguments)
    with ends_with_a_message():
        store = Store(options.store)
        policies = open_policies(store, choose_run(store, options.run), options.seed)
        questions: Iterable[str] = options.question or typed_lines()
        for question in questions:
            for name, policy in policies.items():
                print(f"{name:>8}: {policy.answer(question)}", flush=True)


if __name__ == "__main__":
    main()
