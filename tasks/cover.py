"""Which parts of a growing table cover the completions that a stage wants, each completion once."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from tasks.artifacts import Artifact
from tasks.filesystem import in_parallel
from tasks.storage import AT_ONCE
from tasks.tables import Slice, completions_of


class Selection:
    """Slices that cover wanted completions, each completion once, as parts are taken one after another."""

    def __init__(self, wanted: Mapping[str, frozenset[int]]) -> None:
        """Start with nothing.

        Args:
            wanted: The ids of each prompt's completions.
        """
        self.missing = dict(wanted)
        """What no part has had so far."""
        self.begun: dict[str, str] = {}
        """Prompts whose completions lie in several parts, or are missing in part, and the first part that has some."""
        self._slices: list[Slice] = []
        self._links: list[tuple[str, str]] = []

    def take(self, part: Artifact, held: list[tuple[frozenset[int], list[str]]]) -> None:
        """Take of a part what is still missing.

        Args:
            part: The part.
            held: What it holds, as `completions_of` returns it.
        """
        taken: dict[str, frozenset[int]] = {}
        for ids, prompt_ids in held:
            for prompt_id in prompt_ids:
                wanted = self.missing.get(prompt_id)
                if wanted is not None and (found := ids & wanted):
                    taken[prompt_id] = found
                    self._settle(prompt_id, wanted - ids, part.uri)
        if taken:
            self._slices += slices_of(part, held, taken)

    def add(self, part: Artifact, prompt_ids: Iterable[str]) -> None:
        """Take the whole of a part that was made of what was missing of some prompts."""
        self._slices.append(Slice(part))
        for prompt_id in prompt_ids:
            self._links.append((self.begun.setdefault(prompt_id, part.uri), part.uri))

    def slices(self) -> list[Slice]:
        """Return the slices in the order of their parts, those that share prompts or a part under one number."""
        slices = sorted(self._slices, key=lambda slice_: slice_.part.uri)
        first: dict[str, str] = {slice_.part.uri: slice_.part.uri for slice_ in slices}

        def root(uri: str) -> str:
            while first[uri] != uri:
                first[uri] = uri = first[first[uri]]
            return uri

        for one, other in self._links:
            first[root(other)] = root(one)
        sizes = Counter(root(slice_.part.uri) for slice_ in slices)
        numbers = {uri: number for number, uri in enumerate(uri for uri, size in sizes.items() if size > 1)}
        return [slice_._replace(group=numbers.get(root(slice_.part.uri))) for slice_ in slices]

    def _settle(self, prompt_id: str, rest: frozenset[int], uri: str) -> None:
        if rest:
            self.missing[prompt_id] = rest
        else:
            del self.missing[prompt_id]
        if rest or prompt_id in self.begun:
            self._links.append((self.begun.setdefault(prompt_id, uri), uri))


def select_slices(parts: Iterable[Artifact], wanted: Mapping[str, frozenset[int]]) -> Selection:
    """Select the slices that cover the wanted completions, and no part further than needed."""
    selection = Selection(wanted)
    if selection.missing:
        for part, held in in_parallel(lambda part: (part, completions_of(part)), parts, AT_ONCE):
            selection.take(part, held)
            if not selection.missing:
                break
    return selection


def slices_of(
    part: Artifact, held: list[tuple[frozenset[int], list[str]]], taken: Mapping[str, frozenset[int]]
) -> list[Slice]:
    """Return the slices of a part that have some completions of it and no others.

    Args:
        part: The part.
        held: What it holds, as `completions_of` returns it.
        taken: The ids of the completions by prompt.
    """
    if all(taken.get(prompt_id) == ids for ids, prompt_ids in held for prompt_id in prompt_ids):
        return [Slice(part)]
    every = {prompt_id: ids for ids, prompt_ids in held for prompt_id in prompt_ids}
    alike: dict[frozenset[int] | None, list[str]] = defaultdict(list)
    for prompt_id, ids in taken.items():
        alike[None if ids == every[prompt_id] else ids].append(prompt_id)
    return [
        Slice(part, None if len(prompt_ids) == len(every) else frozenset(prompt_ids), ids)
        for ids, prompt_ids in alike.items()
    ]
