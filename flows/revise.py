"""Let a judge criticise and rewrite completions by its principles (Constitutional AI, arXiv:2212.08073).

python -m flows.revise configs/judge.yaml .rsdpo/sample_completions/7f06070f684c... --store .rsdpo

It makes demonstrations and pairs. The configuration of a run names them by their URIs, which are printed, in
`data.demonstrations` and `data.preferences`.
"""

if __name__ == "__main__":  # what is typed wrong is told before the imports below, which take seconds
    from flows.arguments import check_revise_command

    check_revise_command()


import json

from prefect import flow

from flows.arguments import revise_parser
from flows.command_line import ends_with_a_message
from flows.config_files import read_section
from flows.prefect_server import check_places, start_server
from flows.run_log import RunLog
from tasks.config.judges import JudgeConfig
from tasks.inspection.sampled import find_sampled
from tasks.judges.endpoint import key_of
from tasks.pipeline.progress import log
from tasks.pipeline.site import Site
from tasks.revisions import revised_demonstrations, revised_preferences
from tasks.store.artifacts import Artifact
from tasks.store.folders import open_store


@flow(name="revise")
def revise(judge: JudgeConfig, completions: str, rounds: int = 1, store: str = "./.rsdpo") -> dict[str, Artifact]:
    """Revise the first completion of each prompt; return the pairs and the demonstrations.

    Args:
        judge: Who revises, by which principles.
        completions: URI of sampled completions in the store.
        rounds: How often each is criticised and rewritten.
        store: A folder, `file:///...` or `s3://bucket/prefix`.

    Raises:
        ConfigurationError: The store has no such completions, or the judge cannot be asked.
    """
    site = Site(open_store(store))
    _, sampled, prompts = find_sampled(site.store, completions)
    return {
        "preferences": revised_preferences(site, sampled, prompts, judge, rounds),
        "demonstrations": revised_demonstrations(site, sampled, prompts, judge, rounds),
    }


def main(arguments: list[str] | None = None) -> None:
    """Revise from the command line; exit as `flows.rs_dpo` does where that cannot be done."""
    options = revise_parser().parse_args(arguments)
    with ends_with_a_message():
        judge = read_section(JudgeConfig, options.config, options.set)
        key_of(judge)
        find_sampled(open_store(options.store), options.completions)
        check_places()
        with RunLog() as run_log:
            start_server(run_log.path)
            made = revise(judge, options.completions, options.rounds, options.store)
        for name, artifact in made.items():
            log(f"{artifact.rows} {name}: {artifact.uri}")
        if options.json:
            print(json.dumps({name: artifact.model_dump(mode="json") for name, artifact in made.items()}), flush=True)


if __name__ == "__main__":
    main()
