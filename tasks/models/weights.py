"""Weights: whether a folder's are all of the model and nothing else, and how they are loaded.

transformers draws a weight at random where no file has its name, and passes over a name that it does not know. Here
either is an error, for every model: when it comes in, by names and shapes alone, and again wherever it is loaded.
"""

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.config.errors import ConfigurationError
from tasks.models.reward_heads import has_bias, with_bias
from tasks.models.weight_files import check_tensors, headers, register_oasst, shorten

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Role = Literal["policy", "reward_model", "reward_base"]
"""A policy is a causal model, a `reward_model` is ready to score, a `reward_base` becomes one: its head is made new."""
_DERIVED = re.compile(
    r"(^|\.)(attn|attention)\.(bias|masked_bias|causal_mask|embed_positions)$"
    r"|rotary_(pos_)?emb\.(inv_freq|cos_cached|sin_cached)$|(^|\.)(position_ids|token_type_ids)$"
)
"""Masks and positions, which older releases of transformers saved although they follow from the configuration."""
_CAUSAL_HEAD = re.compile(r"(lm_head|embed_out)\.")
"""Heads that a classifier does not have; its files may still hold the one of the causal model that it was made from."""
_WRAPPER = re.compile(r"(^|\.)(_orig_mod|module|_fsdp_wrapped_module|_forward_module|base_model|pretrained_model)\.")


def embedding_rows(folder: Path, trust_remote_code: bool) -> int:
    """Return how many token ids a model has embeddings for.

    Raises:
        ConfigurationError: Its configuration cannot be read.
    """
    from transformers import AutoConfig

    register_oasst(folder)
    with _built(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
        return int(config.get_text_config().vocab_size)


def check_head(folder: Path, trust_remote_code: bool) -> None:
    """Refuse a base without a variant that ends in a scalar head, from its configuration alone.

    Raises:
        ConfigurationError: transformers has none for its architecture.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    with _built(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    own = getattr(config, "auto_map", None) or {}
    if (
        type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
        and "AutoModelForSequenceClassification" not in own
    ):
        raise ConfigurationError(
            f"no reward model can be trained from {folder}: transformers has no {config.model_type} model with a "
            "scalar head; name another reward_model.base_model, or a reward_model.ready_model"
        )


def outline(folder: Path, role: Role, trust_remote_code: bool) -> "PreTrainedModel":
    """Return a model without its values, for which the folder has every weight by name and shape, and no other.

    transformers itself fits the names, as when it loads; of the files only the headers are read.

    Raises:
        ConfigurationError: The model cannot be built, or the weights are not its own.
    """
    import torch
    from transformers import AutoConfig

    labels = {"num_labels": 1} if role == "reward_base" else {}
    with _built(folder), _silent():
        config = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code, **labels
        )
        with torch.device("meta"):
            kind = type(_auto_class(role).from_config(config, trust_remote_code=trust_remote_code))
        kind = with_bias(kind) if role == "reward_model" and has_bias(folder) else kind
        model, found = kind.from_pretrained(
            None,
            config=config,
            state_dict=headers(folder),
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    _check_names(model, found, folder, role)
    if role == "policy":
        _check_causal(model, folder)
    checked: PreTrainedModel = model
    return checked


def load_weights(folder: Path, role: Role, dtype: "torch.dtype | str", trust_remote_code: bool) -> "PreTrainedModel":
    """Load a model whose files hold all of its weights, and no others.

    Raises:
        ConfigurationError: They do not, or some are NaN or infinite.
    """
    register_oasst(folder)
    labels = {"num_labels": 1} if role == "reward_base" else {}
    model, found = _class_of(folder, role, trust_remote_code).from_pretrained(
        folder,
        dtype=dtype,
        attn_implementation=_attention(folder, trust_remote_code),
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **labels,
    )
    _check_names(model, found, folder, role)
    check_tensors(folder, model.named_parameters())
    loaded: PreTrainedModel = model
    return loaded


def _attention(folder: Path, trust_remote_code: bool) -> str | None:
    """Return how a model is to attend; None: as transformers chooses, whose faster kernels leave out Gemma 2's caps."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    return "eager" if getattr(config.get_text_config(), "attn_logit_softcapping", None) else None


def _auto_class(role: Role) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    return AutoModelForCausalLM if role == "policy" else AutoModelForSequenceClassification


def _class_of(folder: Path, role: Role, trust_remote_code: bool) -> Any:
    """Return what loads a model: one of transformers' automatic classes, or its own with a bias in the head."""
    import torch
    from transformers import AutoConfig

    if role != "reward_model" or not has_bias(folder):
        return _auto_class(role)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        return with_bias(type(_auto_class(role).from_config(config, trust_remote_code=trust_remote_code)))


def _check_names(model: "PreTrainedModel", found: dict[str, Any], folder: Path, role: Role) -> None:
    """Refuse weights that are missing, unknown or of another shape, apart from a head that will be made new."""
    own, parts = _body(model)

    def matters(name: str) -> bool:
        known = name in own or name.startswith(f"{model.base_model_prefix}.") or name.partition(".")[0] in parts
        is_new = role == "reward_base" and (not known or "pooler." in name)
        return not (is_new or (role != "policy" and _CAUSAL_HEAD.match(name)))

    missing = sorted(filter(matters, found["missing_keys"]))
    unknown = sorted(name for name in found["unexpected_keys"] if matters(name) and not _DERIVED.search(name))
    shapes = {
        name: f"{name} is {list(given)} instead of {list(wanted)}" for name, given, wanted in found["mismatched_keys"]
    }
    other = [shapes[name] for name in sorted(shapes) if matters(name)]
    kinds = [(missing, "missing"), (unknown, "unknown to it"), (other, "of another shape")]
    if faults := [f"{len(names)} {kind} ({shorten(names)})" for names, kind in kinds if names]:
        raise ConfigurationError(
            f"{folder} does not hold the weights of a {type(model).__name__}, {'; '.join(faults)}. {_remedy(unknown)}"
        )


def _check_causal(model: "PreTrainedModel", folder: Path) -> None:
    """Refuse a model each of whose predictions would see the tokens that come after."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

    settings = model.config.get_text_config()
    fills_masks = type(settings) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(settings, "is_decoder", False)
    if fills_masks or getattr(settings, "attn_type", None) == "bi":  # XLNet attends both ways
        raise ConfigurationError(
            f"{folder} is no policy: a {settings.model_type} model reads what comes after a token to predict it; name "
            "a causal model, or set is_decoder in config.json where it was trained as one"
        )


def _body(model: "PreTrainedModel") -> tuple[set[str], set[str]]:
    """Return the names of the weights of a model's body, which is all but the head, and of the body's parts."""
    body = getattr(model, model.base_model_prefix, model)
    prefix = "" if body is model else f"{model.base_model_prefix}."
    return {prefix + name for name in body.state_dict()}, {name for name, _ in body.named_children()}


def _remedy(unknown: list[str]) -> str:
    if any("lora_" in name or ".base_layer." in name for name in unknown):
        return "An adapter is in them: merge it first (PeftModel.merge_and_unload)"
    if wrapped := next((match for name in unknown if (match := _WRAPPER.search(name))), None):
        return (
            f"They were saved from a wrapped or compiled module: save the model inside, or take {wrapped.group(2)!r} "
            "out of the names"
        )
    if any(name.endswith((".qweight", ".scales", ".absmax", ".weight_scale", ".weight_packed")) for name in unknown):
        return "They are quantised: name the model in full precision"
    return "It is a model of another kind, or was not saved whole: name a folder that save_pretrained wrote"


@contextlib.contextmanager
def _built(folder: Path) -> Iterator[None]:
    """Name the folder of a model that cannot be built, whatever its own code or configuration raises."""
    from huggingface_hub.errors import StrictDataclassError

    raised = (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError, ImportError, RuntimeError)
    try:
        yield
    except ConfigurationError:
        raise
    except (*raised, StrictDataclassError) as error:
        if "custom code" in str(error):
            raise ConfigurationError(
                f"{folder} comes with code of its own, which runs only with trust_remote_code: true; read it first"
            ) from error
        said = str(error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ else error)
        what = f"{type(error).__name__}: {said.partition(chr(10))[0]}"  # the rest may list all there are
        raise ConfigurationError(
            f"the model in {folder} cannot be built ({what}): mend its config.json, or name another"
        ) from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep back what transformers reports of loading: here it becomes an error, or is of no interest."""
    from transformers.utils import logging as progress

    logger, bars = logging.getLogger("transformers"), progress.is_progress_bar_enabled()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    progress.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            progress.enable_progress_bar()
