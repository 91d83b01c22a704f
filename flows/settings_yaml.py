"""Read YAML as whoever writes settings means it: YAML 1.2's numbers, and no key twice."""

import json
import re
from typing import Any

import yaml

from tasks.config.errors import ConfigurationError

_NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$")
"""What YAML 1.2 takes for a number and YAML 1.1, PyYAML's, for text: an exponent without a point or a sign."""
_NO_NUMBER = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)$")
"""What YAML 1.1 alone takes for a number: `0100` for 64, `1:30` for 90."""


class _Loader(yaml.SafeLoader):
    """Reads `1e-5` as the number that it is, in quotes as text; refuses a key that stands twice in one mapping."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return a mapping as it is written, before `<<` brings in what it may override."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name in seen:
                problem = f"{name!r} stands here twice, and only the last one would count"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen |= {name} - {"", "<<"}
        return node


_Loader.yaml_implicit_resolvers = {
    first: [("tag:yaml.org,2002:str", _NO_NUMBER), *resolvers] if first in "-+0123456789" else [*resolvers]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))


def read_yaml(text: str | bytes, where: str) -> Any:
    """Return the value of YAML.

    Args:
        text: The YAML; bytes are UTF-8 or UTF-16.
        where: Where it stands, for the message.

    Raises:
        ConfigurationError: The text is no YAML, holds another than plain values, has a key twice or an alias within
            its own anchor, or a date or a number in it is none, such as 2024-13-45.
    """
    try:
        loader = _Loader(text)  # a SafeLoader: makes plain values only
        try:
            found = loader.get_single_data()
        finally:
            loader.dispose()
        json.dumps(found, default=str, skipkeys=True)  # a ValueError where an alias stands within its own anchor
        return found
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigurationError(f"{where} is no valid YAML: {error}") from error
