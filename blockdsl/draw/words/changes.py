"""What differs between two graphs, in words: of each node, of the stack as a whole, and how many are alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...graph.costs import stage_title
from ...graph.diff import Change
from ...registry.kinds import kinds
from ...registry.options import spell
from .captions import Captions
from .ends import logits_in_effect
from .header import head_of, norm_words
from .told import Told

if TYPE_CHECKING:
    from ...graph.diff import Changed, Difference
    from ...graph.graph import Graph
    from .details import Details

ARROW = " → "


def change_words(changes: Iterable[Change], arrow: str) -> str:
    """`heads 8 -> 4, glu false -> true`."""
    return ", ".join(_said(change, arrow) for change in changes)


def _said(change: Change, arrow: str) -> str:
    return f"{change.name} {spell(change.before)}{arrow}{spell(change.after)}"


def _shown(change: Change) -> str:
    """The same in a picture, which has all large numbers in groups of three digits."""
    return f"{change.name} {_grouped(change.before)}{ARROW}{_grouped(change.after)}"


def _grouped(value: Any) -> str:
    return f"{value:,}" if type(value) is int else spell(value)


def in_effect(diff: Difference, changed: Changed) -> list[Change]:
    """What differs of a node, with the values that options which are left open come to."""
    node_type = diff.before.node_type(changed.before)
    if node_type == "output":
        return _of_logits(diff, changed)
    if node_type != "block":
        return [*changed.changes]
    was, now = vars(diff.before.completed(changed.before)), vars(diff.after.completed(changed.after))
    return [
        replace(
            change,
            before=was.get(change.name) if change.before is None else change.before,
            after=now.get(change.name) if change.after is None else change.after,
        )
        for change in changed.changes
    ]


def _of_logits(diff: Difference, changed: Changed) -> list[Change]:
    """What differs of the output; of a scale and a bias of logits that are left open, what they come to."""
    ends = diff.before.nx.nodes[changed.before], diff.after.nx.nodes[changed.after]
    if any(attrs["logits_dim"] is None for attrs in ends):
        return [*changed.changes]
    was, now = (attrs | logits_in_effect(attrs) for attrs in ends)
    names = dict.fromkeys((*(change.name for change in changed.changes), "logits_scale", "logits_bias"))
    return [Change(name, was.get(name), now.get(name)) for name in names if was.get(name) != now.get(name)]


def rewired(diff: Difference, change: Change, arrow: str) -> str:
    """What a node reads: sources by their kinds, so that repeats are alike, or by label; by name if that is unclear."""
    sides = (diff.before, change.before), (diff.after, change.after)
    if _labelled(change.name):
        old, new = ([places(graph, sources)] for graph, sources in sides)
    else:
        old, new = ([_sort(graph, node) for node in sources] for graph, sources in sides)
    if old == new:
        old, new = list(change.before), list(change.after)
    name = "reads" if change.name == "read" else change.name
    return f"{name} {' + '.join(old) or 'none'}{arrow}{' + '.join(new) or 'none'}"


def read(graph: Graph, node: str) -> str:
    """`reads u (gain)`."""
    join = graph.nx.nodes[node]["join"]
    return f"reads {places(graph, graph.sources(node, 'read'))}{'' if join == 'add' else f' ({join})'}"


def places(graph: Graph, sources: Iterable[str]) -> str:
    """Places of the stream, by a label that all have, or by label or name each."""
    names = [graph.labels(source) or (source,) for source in sources]
    common = [name for name in names[0] if all(name in each for each in names)] if names else ["none"]
    return common[0] if common else ", ".join(each[0] for each in names)


def _labelled(carries: str) -> bool:
    """Whether what edges carry comes from a place that a label may name."""
    named = {option.reads for kind in kinds().values() for option in kind.reading_options()} - {"context"}
    return carries in named | {"read"}


def _sort(graph: Graph, node: str) -> str:
    attrs: dict[str, Any] = graph.nx.nodes[node]
    return str(attrs.get("kind") or attrs.get("scheme") or attrs["type"])


# How many ---------------------------------------------------------------------------------------------------------


def fates(diff: Difference) -> dict[str, int]:
    """How many blocks and reads are alike, changed, added and removed; two that belong together count once."""
    ours, theirs = diff.status()
    of = Counter({"alike": 0})
    of.update("alike" if status == "same" else status for status in _of_stream(diff.before, ours))
    of["added"] = [*_of_stream(diff.after, theirs)].count("added")
    return {name: of[name] for name in ("alike", "changed", "added", "removed")}


def _of_stream(graph: Graph, status: dict[str, str]) -> Iterator[str]:
    return (status[node] for node in graph.nx if graph.node_type(node) in ("block", "read"))


def headline(diff: Difference) -> list[str]:
    """`46 blocks alike`, `1 changed`, ..."""
    if not diff:
        return ["no differences"]
    counts = fates(diff)
    count = counts.pop("alike")
    alike = f"{count:,} block{'' if count == 1 else 's'} alike" if count else "no block alike"
    return [alike, *(f"{count:,} {name}" for name, count in counts.items() if count)]


# The stack as a whole -----------------------------------------------------------------------------------------------


def everywhere(diff: Difference) -> list[Change]:
    """Changes of an option that all blocks which both graphs have share, where these are of several kinds."""
    of = {(changed.before, changed.after): changed.changes for changed in diff.blocks}
    blocks = [pair for pair in diff.pairs if diff.before.node_type(pair[0]) == "block"]
    if len(of) < len(blocks) or len({diff.before.block(before)["kind"] for before, _ in blocks}) < 2:
        return []
    return [change for change in of.get(blocks[0], ()) if all(change in of.get(pair, ()) for pair in blocks)]


def above(diff: Difference, details: Sequence[Details], common: Collection[Change]) -> list[tuple[list[str], str]]:
    """What stands above a difference, each with the role of its text: how much is alike, and what of the stacks is not.

    Args:
        details: of both graphs.
        common: `everywhere` of the difference.
    """
    differ, alike = _stack_words(diff, details, common)
    said = [(headline(diff), "facts")]
    said += [(["differ: " + differ[0], *differ[1:]], "change")] if differ else []
    return said + ([(["alike: " + alike[0], *alike[1:]], "settings")] if alike else [])


def _stack_words(
    diff: Difference, details: Sequence[Details], common: Collection[Change]
) -> tuple[list[str], list[str]]:
    """What differs of the stacks as a whole, and what is alike."""
    heads = [head_of(own.captions, own.total) for own in details]
    (size, *ours), (other_size, *theirs) = (head.above() for head in heads)
    facts, captions = (ours, theirs), [own.captions for own in details]
    norms = [[fact for fact in own if fact != "causal"] for own in facts]
    differ = [_between("", size, other_size)]
    differ += [_shown(change) for change in diff.stack]
    differ += [_between("", *(" ".join(own) or "no norm" for own in norms))]
    differ += [_shown(change) for change in common if not _of_norm(diff, change)]
    differ += [_between("positions", *map(_positions, captions))]
    differ += stage_changes(diff, ARROW)
    alike = [fact for fact in facts[0] if fact in facts[1]]
    alike += [said for said in heads[0].settings if said in heads[1].settings]
    return [*filter(None, differ)], alike


def _between(name: str, before: str, after: str) -> str:
    return "" if before == after else f"{name} {before}{ARROW}{after}".strip()


def _of_norm(diff: Difference, change: Change) -> bool:
    """Whether the words for the norm tell it, in one of the graphs at least."""
    for graph in (diff.before, diff.after):
        blocks = (graph.block(node)["options"] for node in graph.nodes("block"))
        options = next((own for own in blocks if change.name in own), None)
        if options is None:  # a shift or a scale: no option
            return False
        was, now = ({**options, change.name: value} for value in (change.before, change.after))
        if norm_words(was) != norm_words(now):
            return True
    return False


def _positions(captions: Captions) -> str:
    said = (captions.position(node).removesuffix(" positions") for node in captions.graph.nodes("position"))
    return ", ".join(said) or "none"


def stage_changes(diff: Difference, arrow: str) -> list[str]:
    """`- stage enc`, `+ stage 2`, `stage 1: starts at a2 -> f3`."""
    said = []
    for stage in diff.stages:
        if stage.after is None:
            said.append(f"- stage {stage_title(diff.before, stage.before or 0)}")
        elif stage.before is None:
            said.append(f"+ stage {stage_title(diff.after, stage.after)}")
        else:
            said.append(f"~ stage {stage_title(diff.before, stage.before)}: {change_words(stage.changes, arrow)}")
    return said


# Of two streams ----------------------------------------------------------------------------------------------------


def streams(diff: Difference) -> dict[str, Difference]:
    """The difference of each of two streams by its name; of a graph alone, "" → itself."""
    if diff.encoder is None:
        return {"": diff}
    before, after = (graph.streams()["decoder"] for graph in (diff.before, diff.after))
    return {"encoder": diff.encoder, "decoder": replace(diff, before=before, after=after, encoder=None)}


# Of each node -------------------------------------------------------------------------------------------------------


def told(diff: Difference, common: Collection[Change]) -> tuple[Told, Told]:
    """What is to be said of the nodes of both, but for what all blocks have in `common`, which the stack says."""
    ours, theirs = diff.status()
    if not diff:
        return Told(ours), Told(theirs)
    said: dict[str, list[str]] = {}
    for changed in diff.settings:
        said[changed.after] = [*map(_shown, in_effect(diff, changed))]
    for changed in diff.blocks:
        here = zip(changed.changes, in_effect(diff, changed), strict=True)
        own = [_shown(told) for change, told in here if change not in common]
        said.setdefault(changed.after, []).extend(own)
    partner = dict(diff.pairs)
    for changed in diff.wiring:
        said.setdefault(changed.after, []).extend(_skips(diff, change, partner) for change in changed.changes)
    return Told(ours), Told(theirs, said)


def _skips(diff: Difference, change: Change, partner: Mapping[str, str]) -> str:
    """`rewired`, but for streams that are added or no longer: those have lines."""
    old, new = [partner.get(node) for node in change.before], [*change.after]
    more, less = [node for node in new if node not in old], [node for node in old if node not in new]
    if change.name != "stream" or bool(more) == bool(less):
        return rewired(diff, change, ARROW)
    count = len(more or less)
    return f"{'+' if more else '−'} {count} stream{'' if count == 1 else 's'} of further up"
