"""Which parts of a growing table cover the completions that a stage wants, each completion once."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tasks.store.artifacts import Artifact
from tasks.store.filesystem import in_parallel
from tasks.store.folders import AT_ONCE
from tasks.store.slices import Slice, completions_of

Held = list[tuple[frozenset[int], list[str]]]
"""What a part holds, as `completions_of` returns it: ids of completions, and the prompts that have just these."""


class Selection:
    """Slices of parts that cover wanted completions, each completion once; grows by a part at a time."""

    def __init__(self, wanted: Mapping[str, frozenset[int]]) -> None:
        """Start with nothing.

        Args:
            wanted: Prompt -> ids of its completions.
        """
        self.missing = dict(wanted)
        """Prompt -> ids of its completions that no part has had so far."""
        self.begun: dict[str, str] = {}
        """Prompt whose completions lie in several parts, or are missing in part -> the first part that has some."""
        self._slices: list[Slice] = []
        self._links: list[tuple[str, str]] = []
        """Two parts each that share a prompt, by their URIs."""

    def begin(self, slices: Iterable[Slice], merged: Mapping[str, Artifact]) -> None:
        """Begin with slices of prompts that are none of the wanted ones.

        Args:
            slices: As an earlier selection returned them.
            merged: URI of a part that all counts -> the part that has its rows now.
        """
        first: dict[int, str] = {}
        for slice_ in slices:
            part = merged.get(slice_.part.uri, slice_.part)
            if slice_.group is not None:
                self._links.append((first.setdefault(slice_.group, part.uri), part.uri))
            if part is slice_.part:
                self._slices.append(slice_)
        self._slices += [Slice(part) for part in {part.uri: part for part in merged.values()}.values()]

    def take(self, part: Artifact, held: Held) -> None:
        """Take the completions of a part that are still missing."""
        taken: dict[str, frozenset[int]] = {}
        for prompt_id, ids in _by_prompt(held).items():
            wanted = self.missing.get(prompt_id)
            if wanted is not None and (found := ids & wanted):
                taken[prompt_id] = found
                self._settle(prompt_id, wanted - ids, part.uri)
        if taken:
            self._slices += slices_of(part, held, taken)

    def search(self, parts: Iterable[Artifact]) -> None:
        """Take what is missing from parts, in this order, and read no more of them than needed."""
        if not self.missing:
            return
        for part, held in in_parallel(lambda part: (part, completions_of(part)), parts, AT_ONCE):
            self.take(part, held)
            if not self.missing:
                return

    def add(self, part: Artifact, prompt_ids: Iterable[str]) -> None:
        """Take the whole of a part that was made of the missing completions of some prompts."""
        self._slices.append(Slice(part))
        for prompt_id in prompt_ids:
            self._links.append((self.begun.setdefault(prompt_id, part.uri), part.uri))

    def slices(self) -> list[Slice]:
        """Return the slices in the order of their parts; slices that share prompts or a part get one group number."""
        return grouped(self._slices, self._links)

    def _settle(self, prompt_id: str, rest: frozenset[int], uri: str) -> None:
        """Note which of a prompt's completions are still missing, and link the part with the prompt's other parts."""
        if rest:
            self.missing[prompt_id] = rest
        else:
            del self.missing[prompt_id]
        if rest or prompt_id in self.begun:
            self._links.append((self.begun.setdefault(prompt_id, uri), uri))


def select_slices(parts: Iterable[Artifact], wanted: Mapping[str, frozenset[int]]) -> Selection:
    """Return slices that cover the wanted completions as far as the parts have them; read no more parts than needed.

    Args:
        parts: Looked at in this order.
        wanted: Prompt -> ids of its completions.
    """
    selection = Selection(wanted)
    selection.search(parts)
    return selection


def join_slices(slices: Sequence[Slice]) -> list[Slice]:
    """Return slices of several tables, those that share prompts in one group; completions are told apart by `shift`."""
    first: dict[str, str] = {}
    links = [(first.setdefault(id_, each.part.uri), each.part.uri) for each in slices for id_ in each.completions()]
    return grouped(slices, links)


def grouped(slices: Iterable[Slice], links: Iterable[tuple[str, str]]) -> list[Slice]:
    """Return slices in the order of their parts; those that share prompts or a part get one group number.

    Args:
        slices: The slices.
        links: Two parts each that share a prompt, by their URIs.
    """
    ordered = sorted(slices, key=lambda slice_: slice_.part.uri)
    first: dict[str, str] = {slice_.part.uri: slice_.part.uri for slice_ in ordered}

    def root(uri: str) -> str:  # of the part's set: parts that are linked end up in one set
        while first[uri] != uri:
            first[uri] = uri = first[first[uri]]
        return uri

    for one, other in links:
        first[root(other)] = root(one)
    sizes = Counter(root(slice_.part.uri) for slice_ in ordered)
    numbers = {uri: number for number, uri in enumerate(uri for uri, size in sizes.items() if size > 1)}
    return [slice_._replace(group=numbers.get(root(slice_.part.uri))) for slice_ in ordered]


def slices_of(part: Artifact, held: Held, taken: Mapping[str, frozenset[int]]) -> list[Slice]:
    """Return the slices of a part that have some of its completions and no others.

    Args:
        part: The part.
        held: What the part holds.
        taken: Prompt -> ids of its completions to have.
    """
    every = _by_prompt(held)
    if taken == every:
        return [Slice(part)]
    alike: dict[frozenset[int] | None, list[str]] = defaultdict(list)
    for prompt_id, ids in taken.items():
        alike[None if ids == every[prompt_id] else ids].append(prompt_id)
    return [
        Slice(part, None if len(prompt_ids) == len(every) else frozenset(prompt_ids), ids)
        for ids, prompt_ids in alike.items()
    ]


def _by_prompt(held: Held) -> dict[str, frozenset[int]]:
    """Return prompt -> ids of the completions that a part has of it."""
    return {prompt_id: ids for ids, prompt_ids in held for prompt_id in prompt_ids}
