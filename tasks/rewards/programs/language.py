"""Which language a completion is in, by py3langid: a naive Bayes model over bytes, 97 languages, no GPU.

It needs a sentence or two: on a few words, and between close languages (Danish and Norwegian, Serbian and Croatian),
its probabilities say little. Code, formulas and names count as text.
"""

import functools
from typing import Annotated

from pydantic import AfterValidator

from tasks.config.errors import ConfigurationError
from tasks.rewards.options import Text

try:
    from py3langid import langid
except ModuleNotFoundError as error:
    raise ConfigurationError(
        f"{__name__} needs the package py3langid, which is not installed: pip install 'rs-dpo[language]'"
    ) from error


@functools.cache
def _identifier() -> langid.LanguageIdentifier:
    """Return the model, read once a process."""
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


def _checked(language: str) -> str:
    """Return the language.

    Raises:
        ValueError: The model does not know it.
    """
    if language not in (known := _identifier().labels):
        raise ValueError(f"no language that py3langid knows: write one of {', '.join(sorted(known))}")
    return language


Language = Annotated[Text, AfterValidator(_checked)]


def in_language(messages: list[dict], completion: str, language: Language) -> float:
    """Return the probability that a completion is in a language; 0 without a letter.

    ```yaml
    function: tasks.rewards.programs.language:in_language
    options: {language: de}
    ```

    Args:
        messages: The prompt; unused.
        completion: The text to score.
        language: Its ISO 639 code.
    """
    if not any(map(str.isalpha, completion)):
        return 0.0
    return float(dict(_identifier().rank(completion))[language])
