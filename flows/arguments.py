"""The arguments of every command, and the checks that a command makes of them at the top of its file.

A command reads them before it imports its flow: Prefect takes a second, the stages another one. So nothing is imported
above but the standard library, and `--help` and a wrong flag are answered at once.
"""

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.config.sections import Section

QUICKSTART = "configs/quickstart.yaml"
CHAT = "configs/smollm2_instructions.yaml"
STORE = "a folder, file:///... or s3://bucket/prefix"
BROWSED_AT = 8322
"""Port of the pages of `flows.browse`."""


def run_parser() -> argparse.ArgumentParser:
    """Return the parser of `flows.rs_dpo`, `flows.quickstart` and `flows.chat`."""
    parser = argparse.ArgumentParser(description="Align a language model with RS-DPO.")
    parser.add_argument("config", help="configuration file, e.g. configs/hh.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="override one setting"
    )
    parser.add_argument(
        "--pilot", metavar="N", help="go through N prompts, and predict what the whole run will find and cost"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be computed, and compute nothing")
    parser.add_argument("--json", action="store_true", help="print artifacts and metrics as one last line of JSON")
    return parser


def check_run_command(*config: str) -> None:
    """End the process with a message, as the command would later, where its arguments or its settings are wrong.

    Args:
        *config: The configuration file of a command that has its own.
    """
    options = run_parser().parse_args([*config, *sys.argv[1:]])
    from flows.command_line import ends_with_a_message, read_settings

    with ends_with_a_message():
        read_settings(options)


def compare_parser() -> argparse.ArgumentParser:
    """Return the parser of `flows.compare`."""
    parser = _section_parser("Compare several ways to align one policy.", "configs/compare_facts.yaml")
    parser.add_argument("--dry-run", action="store_true", help="list the runs, and compute nothing")
    return parser


def check_compare_command() -> None:
    """End the process with a message where the arguments or the settings of a comparison are wrong."""
    options = compare_parser().parse_args()
    from tasks.comparison.arms import ComparisonConfig

    _check_section(ComparisonConfig, options)


def rounds_parser() -> argparse.ArgumentParser:
    """Return the parser of `flows.rounds`."""
    return _section_parser("Rounds of RS-DPO, each from the policy of the one before.", "configs/rounds_facts.yaml")


def check_rounds_command() -> None:
    """End the process with a message where the arguments or the settings of rounds are wrong."""
    options = rounds_parser().parse_args()
    from tasks.rounds.settings import RoundsConfig

    _check_section(RoundsConfig, options)


def judge_rewards_parser() -> argparse.ArgumentParser:
    """Return the parser of `flows.judge_rewards`."""
    return _section_parser("Judge how good rewards are.", "configs/judge_rewards.yaml")


def check_judge_rewards_command() -> None:
    """End the process with a message where the arguments or the settings of judged rewards are wrong."""
    options = judge_rewards_parser().parse_args()
    from tasks.quality.settings import JudgeRewardsConfig

    _check_section(JudgeRewardsConfig, options)


def _section_parser(description: str, example: str) -> argparse.ArgumentParser:
    """Return the parser of a command whose configuration is one section."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", help=f"configuration file, e.g. {example}")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override one setting")
    parser.add_argument("--json", action="store_true", help="print what comes out as one last line of JSON")
    return parser


def _check_section(kind: "type[Section]", options: argparse.Namespace) -> None:
    from flows.command_line import ends_with_a_message
    from flows.config_files import read_section

    with ends_with_a_message():
        read_section(kind, options.config, options.set)


def add_prompts_parser() -> argparse.ArgumentParser:
    """Return the parser of `flows.add_prompts`."""
    return _addition_parser("prompts")


def add_preferences_parser() -> argparse.ArgumentParser:
    """Return the parser of `flows.add_preferences`."""
    parser = _addition_parser("preferences")
    parser.add_argument("--format", help="form of the rows, where their columns do not tell it")
    parser.add_argument("--dimension", help="which of several judgements of a row counts, e.g. safer")
    parser.add_argument("--completions", help="URI of sampled completions: the source is feedback on them, by ids")
    return parser


def _addition_parser(what: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Add {what} to a store, for runs with data.{what}: added.")
    parser.add_argument("source", help="JSONL, Parquet, a folder, an s3:// URI or a hub dataset")
    parser.add_argument("--store", default="./.rsdpo", help=STORE)
    parser.add_argument("--name", help="configuration of a hub dataset or a folder")
    parser.add_argument("--data-dir", help="folder within a hub dataset or a folder")
    parser.add_argument("--split", default="train", help="split of a hub dataset or a folder")
    parser.add_argument("--max-bad-fraction", type=float, default=0.01, help="share of bad rows that is left out")
    parser.add_argument("--json", action="store_true", help="print the counts as one last line of JSON")
    return parser


def revise_parser() -> argparse.ArgumentParser:
    """Return the parser of `flows.revise`."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.revise", description="Let a judge criticise and rewrite completions by its principles."
    )
    parser.add_argument("config", help="file of the judge's settings, e.g. configs/judge.yaml")
    parser.add_argument("completions", help="URI of sampled completions, as a run prints it")
    parser.add_argument("--store", default="./.rsdpo", help=STORE)
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="how often each answer is rewritten")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override one setting")
    parser.add_argument("--json", action="store_true", help="print the artifacts as one last line of JSON")
    return parser


def check_revise_command() -> None:
    """End the process with a message where the arguments, or the settings of the judge, are wrong."""
    options = revise_parser().parse_args()
    from tasks.config.judges import JudgeConfig

    _check_section(JudgeConfig, options)


def judge_policies_parser() -> argparse.ArgumentParser:
    """Return the parser of `flows.judge_policies`."""
    parser = _section_parser("Measure policies by benchmarks, most of them by a judge.", "configs/benchmarks.yaml")
    parser.add_argument("--dry-run", action="store_true", help="count verdicts of the judge, and compute nothing")
    return parser


def check_judge_policies_command() -> None:
    """End the process with a message where the arguments or the settings of benchmarks are wrong."""
    options = judge_policies_parser().parse_args()
    from tasks.config.benchmarks import BenchmarksConfig

    _check_section(BenchmarksConfig, options)


def ask_parser() -> argparse.ArgumentParser:
    """Return the parser of `flows.ask`."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.ask", description="Ask the policies of a run something by hand."
    )
    parser.add_argument("store", help=STORE)
    parser.add_argument("question", nargs="*", help="one user turn each; without any, they are read line by line")
    parser.add_argument("--run", default="last", metavar="ID", help="beginning of a run's id; default: the newest")
    parser.add_argument("--seed", type=int, default=0, help="of the completions; the same one draws the same answer")
    return parser


def browse_parser() -> argparse.ArgumentParser:
    """Return the parser of `flows.browse`."""
    parser = argparse.ArgumentParser(prog="python -m flows.browse", description="Look at a store in the browser.")
    parser.add_argument("store", help=STORE)
    parser.add_argument(
        "--port", type=int, default=BROWSED_AT, metavar="N", help=f"default: {BROWSED_AT}; 0: any free port"
    )
    return parser


def publish_parser() -> argparse.ArgumentParser:
    """Return the parser of `flows.publish`."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.publish", description="Push a run's aligned model to the hub, as one commit."
    )
    parser.add_argument("store", help=STORE)
    parser.add_argument("run", help="how the run's id begins, or `last` for the newest finished one")
    parser.add_argument("repo", help="repository on the hub: owner/name, or a name of your own")
    parser.add_argument("--public", action="store_true", help="let everybody read it; private otherwise")
    parser.add_argument("--adapter", action="store_true", help="the LoRA adapter alone, without the model")
    parser.add_argument("--dry-run", action="store_true", help="print files, sizes and target, and send nothing")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    return parser


def status_parser() -> argparse.ArgumentParser:
    """Return the parser of `flows.status`."""
    parser = argparse.ArgumentParser(prog="python -m flows.status", description="Print how far a run is.")
    parser.add_argument("store", help=STORE)
    parser.add_argument("--run", metavar="ID", help="beginning of a run's id; default: the newest")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    return parser


def store_parser() -> argparse.ArgumentParser:
    """Return the parser of `flows.store`."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.store", description="Look at a store: without a command, list what it holds."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    look = commands.add_parser("list", help="list artifacts, tables, checkpoints and runs (the default)")
    what = look.add_mutually_exclusive_group()
    what.add_argument("--lineage", metavar="DIGEST", help="print what an artifact was made from: digest or stage key")
    what.add_argument("--pair", metavar="PROMPT_ID", help="print a prompt's completions, rewards and pairs")
    look.add_argument("--run", metavar="ID", help="the run that --pair looks at; default: the newest")
    tidy = commands.add_parser("prune", help="delete what no kept run reaches")
    tidy.add_argument("--keep-last", type=int, required=True, metavar="N", help="finished runs to keep")
    tidy.add_argument("--dry-run", action="store_true", help="print what would go, and delete nothing")
    merge = commands.add_parser("compact", help="merge the small parts of tables, so that look-ups stay short")
    for command in (look, tidy, merge):
        command.add_argument("store", help=STORE)
        command.add_argument("--json", action="store_true", help="print one line of JSON")
    return parser


def store_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of `flows.store`, which lists where no command is named; exit with 2 where they are wrong."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] not in ("list", "prune", "compact", "-h", "--help"):
        arguments = ["list", *arguments]
    parser = store_parser()
    options = parser.parse_args(arguments)
    if options.command == "list" and options.run and not options.pair:
        parser.error("--run goes with --pair")
    return options
