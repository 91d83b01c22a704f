"""Sampled completions of a store with the prompts that they were drawn for."""

from tasks.config.errors import ConfigurationError
from tasks.data.feedback import Sampled
from tasks.inspection.catalog import read_catalog
from tasks.store.folders import Store


def find_sampled(store: Store, uri: str) -> Sampled:
    """Return completions by their URI, as a run prints it, or as a local path.

    Raises:
        ConfigurationError: They are not in the store, are no completions, or their prompts are gone from it.
        DamagedArtifactError: They cannot be read.
    """
    where = Store(uri).uri
    catalog = read_catalog(store)
    entry = catalog.entries.get(where.removeprefix(f"{store.uri}/"))
    if entry is None or not where.startswith(f"{store.uri}/"):
        raise ConfigurationError(
            f"completions = {uri!r} is no artifact of {store.uri}: `python -m flows.store {store.uri}` lists them, and "
            "a run prints the URI of its completions at its end"
        )
    completions = entry.artifact(store)
    if completions.kind != "completions" or entry.sort != "stage":
        raise ConfigurationError(
            f"completions = {uri!r} holds {completions.kind}: name a folder of sample_completions, with its whole key"
        )
    made_from = entry.manifest.provenance.inputs if entry.manifest else {}
    prompts = [each for each in catalog.with_digest(made_from.get("prompts", "")) if each.manifest and not each.damage]
    if not prompts:
        raise ConfigurationError(
            f"the prompts of {where} are not in the store any more: run the pipeline again with these prompts"
        )
    return Sampled(store, completions, prompts[-1].artifact(store))
