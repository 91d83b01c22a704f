"""Models come into the store: from a folder, another store or the hub, checked, as safetensors and tokenizer only."""

from pathlib import Path
from typing import Any

from tasks.config.errors import ConfigurationError
from tasks.config.sections import ModelSource
from tasks.config.settings import RewardModelConfig, SftConfig
from tasks.lm.tokens import load_tokenizer
from tasks.lm.turns import end_ids
from tasks.models.checks import check_model
from tasks.models.form import folder_content, generation_settings, mended_generation, stored_files, unread_template
from tasks.models.licence import find_licence, hub_commit
from tasks.models.loading import model_folder, trusts_remote_code
from tasks.models.locate import locate_model
from tasks.models.reward_heads import with_one_output
from tasks.models.templates import pinned_date
from tasks.models.weight_files import shorten
from tasks.models.weights import Role, check_head
from tasks.pipeline.dry_run import PLAN
from tasks.pipeline.progress import log
from tasks.pipeline.remembered import remembered, unless_passed
from tasks.pipeline.site import Site
from tasks.pipeline.stage import stage
from tasks.store.artifacts import NOTHING, Artifact, Content, files_digest
from tasks.store.drafts import Draft, plain


def import_model(site: Site, source: ModelSource, role: Role) -> Artifact:
    """Check a model and bring it into the store.

    Args:
        site: Where it goes.
        source: Where it is.
        role: A ready `reward_model` needs a scalar head and a pad token of its own; a `policy` is a causal model; a
            `reward_base` is what a reward model can be trained from.

    Raises:
        ConfigurationError: The model is missing, or lacks safetensors, a tokenizer, EOS, some of its weights, or what
            its role needs.
    """
    folder = locate_model(source)
    if role == "reward_model":
        folder = with_one_output(folder, source)
    elif source.label is not None:
        raise ConfigurationError(f"label = {source.label!r} of {source.path} is for a ready reward model: take it out")
    if source.trust_remote_code:  # its code may do otherwise tomorrow
        digest = _checked_digest(folder, source, role)
    else:
        decides = [str(folder), folder_content(folder, source), plain(source), role]
        digest = remembered(lambda: _checked_digest(folder, source, role), "import_model", decides)
    model = Artifact(kind="model", uri=str(folder), digest=digest)
    # The base of a reward model is stored as any other base is.
    return store_model(site, model, source, "policy" if role == "reward_base" else role)


def _checked_digest(folder: Path, source: ModelSource, role: Role) -> str:
    """Return the digest of a model in the form in which it would be stored, once it is checked; say what is mended."""
    digest = files_digest(model_files(folder, source, role))
    if source.chat_template is None and (name := unread_template(folder)) is not None:
        log(f"the chat template in {folder}/{name} is not read: to take it, write it into a file for chat_template")
    if (mended := mended_generation(folder)) is not None:
        given = generation_settings(folder)
        changed = sorted(name for name in {*given, *mended} if given.get(name) != mended.get(name))
        log(f"generation settings of {folder} that no trained model could be saved with are mended: {shorten(changed)}")
    return digest


def import_reward_model(site: Site, config: RewardModelConfig, policy: Artifact) -> Artifact:
    """Bring in the ready reward model, or the model to train one from; `NOTHING` where that is the policy.

    Raises:
        ConfigurationError: A reward could not be read at EOS, because padding cannot be told from it.
    """
    if config.ready_model is not None:
        return import_model(site, config.ready_model, "reward_model")
    base = NOTHING if config.base_model is None else import_model(site, config.base_model, "reward_base")
    unless_passed(check_reward_base, base or policy)
    return base


def check_reward_base(model: Artifact) -> None:
    """Refuse a model that no reward model could be trained from.

    Raises:
        ConfigurationError: It has no variant with a scalar head, or padding cannot be told from EOS.
    """
    folder = model_folder(model, weights=False)
    check_head(folder, trusts_remote_code(model))
    tokenizer = load_tokenizer(folder, trusts_remote_code(model))
    if tokenizer.pad_token_id in end_ids(tokenizer):
        raise ConfigurationError(
            f"the tokenizer of {folder} has no token to pad with beside EOS, or pads with the token that ends a turn, "
            "so no reward could be read there: set a pad_token of its own in tokenizer_config.json"
        )


def import_policy(site: Site, config: SftConfig) -> Artifact:
    """Bring in the ready policy, or the base model to train one from."""
    source = config.ready_model or config.base_model
    assert source is not None  # the section demands one
    return import_model(site, source, "policy")


def model_files(folder: Path, source: ModelSource, role: Role) -> dict[str, Content]:
    """Return the files that make the stored model, with its chat template and pad token written in, once checked.

    Raises:
        ConfigurationError: Something that the role needs is missing, or is not what it should be.
    """
    files = stored_files(folder, source)
    check_model(files, folder, role, source.trust_remote_code)
    return files


def _preview_store_model(model: Artifact, source: ModelSource) -> tuple[Artifact, dict[str, Any]]:
    """Lay out all but the weights in a temporary folder, so that a dry run has a tokenizer."""
    plan = PLAN.get()
    assert plan is not None
    folder = plan.folder / model.digest
    folder.mkdir(exist_ok=True)
    for name, content in stored_files(Path(model.uri), source).items():
        if not name.endswith(".safetensors"):
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    stats = {"trust_remote_code": source.trust_remote_code}
    return model.model_copy(update={"uri": str(folder), "stats": stats}), {}


@stage(version=1, preview=_preview_store_model, retries=2)
def store_model(out: Draft, model: Artifact, source: ModelSource, role: Role) -> Artifact:
    """Copy a model folder into the store."""
    files = stored_files(Path(model.uri), source)
    stats: dict[str, Any] = {"trust_remote_code": source.trust_remote_code}
    if (day := pinned_date(bytes(files["chat_template.jinja"]).decode())) is not None:
        stats["template_date"] = day
    if licence := find_licence(Path(model.uri)):
        stats["licence"] = licence
    if (commit := hub_commit(Path(model.uri))) is not None:
        stats["commit"] = commit
    return out.commit("model", files, model.digest, stats=stats)
