"""From blocks that say everything of themselves back to what a text says: settings of the stack, and what differs.

Owns which settings there are and which blocks say otherwise; no structure. A setting is what most of its blocks have.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ..registry.kinds import kind_of
from ..registry.norms import NORM_DETAILS, NORM_OPTIONS, NORMS
from ..registry.options import Option, Value, by_name, plain
from ..registry.positions import POSITION_SETTINGS, REPLACE_ABSOLUTE, SCHEMES, Scheme
from ..registry.settings import table
from ..registry.tokens import MODELS, with_defaults
from . import tokens
from .graph import Graph


class NoText(Exception):
    """Why a graph has no text; the end of a sentence."""


@dataclass(frozen=True)
class Restated:
    """What a text says of a graph's blocks.

    Attributes:
        settings: those of the stack and of the model around it, in the order in which they are declared.
        given: block → what stands in its parenthesis.
        shifts: block → its token shift; None where the stack's setting says it.
        divides: block → what its branch is divided by.
    """

    settings: dict[str, Value]
    given: dict[str, dict[str, Value]]
    shifts: dict[str, int | None]
    divides: dict[str, float]


@dataclass
class _Setting:
    """A setting, and the blocks that have an option by it, with its name there, its value and its default."""

    holders: list[tuple[str, Option, Value]] = field(default_factory=list)

    def common(self) -> tuple[Value] | None:
        """What most blocks have; None: their defaults."""
        votes = Counter(value for _, _, value in self.holders)
        unset = sum(value == option.default for _, option, value in self.holders)
        best = max(votes, key=votes.__getitem__)
        return (best,) if votes[best] > unset else None


def restated(graph: Graph, instead: Mapping[str, Mapping[str, Value]]) -> Restated:
    """What is said of a graph that can be lowered.

    Args:
        instead: block → options to be said otherwise than the graph has them; None: not at all.

    Raises:
        NoText: no text says it.
    """
    settings: dict[str, Value] = {"dim": graph.dim, **_fixed(graph)}
    given: dict[str, dict[str, Value]] = {node: {} for node in graph.nodes("block")}
    divides: dict[str, float] = {}
    by_setting: dict[str, _Setting] = {}
    for node in given:
        divides[node], factor = _factor(graph, node)
        other = {"branch_scale": factor, **instead.get(node, {})}
        for option, value in _options(graph, node):
            if option.name in other and (value := other[option.name]) is None:
                continue
            if option.setting is None or option.name == "shared_norm":  # its place decides where this may stand
                if value != option.default:
                    given[node][option.name] = value
            else:
                by_setting.setdefault(option.setting, _Setting()).holders.append((node, option, value))
    for name, setting in by_setting.items():
        common = setting.common()
        if name not in settings and common is not None:
            settings[name] = common[0]
        for node, option, value in setting.holders:
            if value != settings.get(name, option.default):
                given[node][option.name] = value
    shifts = {node: plain(graph.nx.nodes[node]["shift"]) for node in given}
    shift, times = Counter(shifts.values()).most_common(1)[0] if shifts else (0, 0)
    if shift and times > sum(not each for each in shifts.values()):
        settings["shift_tokens"] = shift
    for scheme in SCHEMES.values():
        for node, own in _positions(graph, scheme, settings):
            given[node] |= own
    final = graph.nx.nodes[graph.end]["norm"] is not None
    if final != (settings.get("pre_norm", True) and not settings.get("pre_and_post_norm")):
        settings["final_norm"] = final
    settings |= _model(graph)
    return Restated(
        {
            name: settings[name]
            for name, option in table().items()
            if settings.get(name, option.default) != option.default
        },
        given,
        {node: None if each == settings.get("shift_tokens", 0) else each for node, each in shifts.items()},
        divides,
    )


def _options(graph: Graph, node: str) -> Iterator[tuple[Option, Value]]:
    attrs = graph.block(node)
    for option in kind_of(attrs["kind"]).all_options():
        value = plain(attrs["options"][option.name])
        yield option, tuple(value) if isinstance(value, list) else value


def _factor(graph: Graph, node: str) -> tuple[float, float]:
    """What divides a block's branch, and its branch_scale: `/2` for 0.5, and for 0.19 branch_scale=0.19."""
    attrs = graph.block(node)
    scale, own = float(attrs["scale"]), plain(attrs["options"]["branch_scale"])
    divide = float(f"{1 / scale:.6g}")
    if not math.isclose(1 / divide, scale, rel_tol=1e-12):
        return (1, scale * own) if attrs["tie"] is None else (1 / scale, own)  # tied blocks have the same options
    return int(divide) if divide.is_integer() else divide, own


def _fixed(graph: Graph) -> dict[str, Value]:
    """What not only blocks go by: the stack's direction, its final norm and its condition."""
    end = graph.nx.nodes[graph.end]
    fixed: dict[str, Value] = {"causal": plain(graph.causal), "output_softcap": plain(end["softcap"])}
    fixed |= {option.name: plain(end[option.name]) for option in NORM_DETAILS}
    if end["norm"] is not None:
        fixed |= {f"use_{norm}": norm == end["norm"] for norm in NORMS if f"use_{norm}" in by_name(NORM_OPTIONS)}
    for node in graph.nodes("condition"):
        dim, expansion = (plain(graph.nx.nodes[node][name]) for name in ("dim", "expansion"))
        fixed["dim_condition"] = None if dim == graph.dim else dim
        if expansion is not None:
            fixed |= {"adaptive_condition_mlp": True, "adaptive_condition_mlp_expansion": expansion}
    return fixed


def _positions(graph: Graph, scheme: Scheme, settings: dict[str, Value]) -> Iterator[tuple[str, dict[str, Value]]]:
    """Add a scheme's settings to `settings`; yields what blocks say that have it otherwise."""
    kind = {node: kind_of(graph.block(node)["kind"]) for node in graph.nodes("block")}
    may = [node for node in kind if scheme.read_by in kind[node].inputs]
    names = {node: {option.setting: option.name for option in kind[node].position_options()} for node in may}
    read = {node: position for node in may if (position := _position(graph, node, scheme)) is not None}
    asks = {node: scheme.asks(scheme.complete(read[node]), _sizes(graph, node)) for node in read}

    def fits(node: str, said: Mapping[str, Value]) -> bool:
        return node in read and scheme.of({**_USUAL, **said}, _sizes(graph, node)) == scheme.with_defaults(read[node])

    # an option of its own, as cross-attention has one, says whether a block is rotated; of others the stack does
    by_option = {node for node in may if scheme.name == "rotary" and "rotary" in graph.block(node)["options"]}
    by_stack = [node for node in may if node not in by_option]
    common, switch = _common(scheme, by_stack, names, asks, fits), scheme.switch[0]
    settings |= common
    for node in may:
        if fits(node, common) if common and node in by_stack else node not in read:
            continue
        if node in by_stack and switch not in names[node]:
            reads = f"reads {scheme.title} unlike others" if node in read else f"reads no {scheme.title}, and others do"
            raise NoText(f"{node} {reads}, which no option of a block says")
        said = asks.get(node, {switch: False})
        usual = _USUAL | common
        yield node, {names[node][n]: v for n, v in said.items() if n in names[node] and v != usual[n]}


_USUAL = {option.name: option.default for option in POSITION_SETTINGS}


def _common(
    scheme: Scheme,
    nodes: Sequence[str],
    names: Mapping[str, Mapping[str | None, str]],
    asks: Mapping[str, dict[str, Value]],
    fits: Callable[[str, Mapping[str, Value]], bool],
) -> dict[str, Value]:
    """The settings that serve most blocks; none, where fewer would say that they read it than that they do not."""
    asked = [asks[node] for node in nodes if node in asks]
    common = max(asked, key=lambda said: sum(fits(node, said) for node in nodes), default={})
    unusual = {
        node: {name for name, value in asks[node].items() if value != _USUAL[name]} for node in nodes if node in asks
    }
    if not all({scheme.switch[0], *said} <= {*names[node]} for node, said in unusual.items()):
        return common  # a block cannot say it
    return common if sum(fits(node, common) for node in nodes) > len(nodes) - len(asked) else {}


def _position(graph: Graph, node: str, scheme: Scheme) -> Mapping[str, Any] | None:
    """The position of a scheme that a block reads."""
    found = (graph.nx.nodes[source] for source in graph.sources(node, "position"))
    return next((attrs for attrs in found if attrs["scheme"] == scheme.name), None)


def _sizes(graph: Graph, node: str) -> Any:
    return SimpleNamespace(dim=graph.dim, **graph.block(node)["options"])


def _model(graph: Graph) -> dict[str, Value]:
    """The settings of the model around the stack."""
    options, model = tokens.read(graph), graph.reads
    if model is None:
        return {}
    if model == "vectors" and options["dim_in"] is None and options["dim_out"] is None:
        raise NoText("the model reads vectors, which a text says by dim_in or dim_out, and it has neither")
    usual = {**with_defaults(MODELS[model], {"max_seq_len": options.get("max_seq_len")}), "max_seq_len": None}
    if tokens.block_schemes(graph) & REPLACE_ABSOLUTE:
        usual["use_abs_pos_emb"] = False
    return {name: value for name, value in options.items() if value != usual[name]}
