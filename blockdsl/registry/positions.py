"""The schemes of relative position: what their nodes say, the settings that make them, what they cost.

A scheme is read by blocks, as a rotation of queries and keys ("rotary") or as a bias of the scores ("bias"), by
every block whose kind declares that input. Blocks that need the same of it share one node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

from . import rotary
from .kinds import Kind, Shape, Sizes
from .options import Option, Value, plain
from .split import Cut, Split, uneven

Settings = Mapping[str, Value]


class Misfit(NamedTuple):
    """What is wrong with a scheme at a block, and what to do about it."""

    problem: str
    hint: str = ""


@dataclass(frozen=True)
class Scheme:
    """A way for positions to reach the blocks.

    Args:
        name: the node's `scheme`.
        title: what people call it.
        read_by: the input by which a kind reads it, "rotary" or "bias".
        switch: the stack's settings that turn it on, any of them; a block may say the first one otherwise.
        attributes: what its node says.
        of: from the stack's settings and a block's dim_head, heads and causality to these attributes.
        asks: and back: from attributes and a block's options to settings that give them, its switch among them.
        size: the attribute that its node is named by.
        node: what its nodes' names start with.
        shapes: attributes → its parameters by name.
        flops: attributes and sizes → floating-point operations of one forward pass.
        saved: attributes and sizes → numbers that it saves for the backward pass, whatever the rows.
        module: the torch class, "package.module:Class"; None: it has no parameters, and nothing is built.
        misfit: what is wrong with the attributes for a block of these options, or None.
        split: attributes and a number of ranks → one rank's share, or a sentence on why each has all; None: nothing of
            it is by head.
        short: a few words on a node, with its attributes by name.
    """

    name: str
    title: str
    read_by: str
    switch: tuple[str, ...]
    attributes: tuple[Option, ...]
    of: Callable[[Settings, Any], dict[str, Value]]
    asks: Callable[[Any, Any], dict[str, Value]]
    size: str
    node: str
    shapes: Callable[[Any], Mapping[str, Shape]] = lambda o: {}
    flops: Callable[[Any, Sizes], int] = lambda o, sizes: 0
    saved: Callable[[Any, Sizes], int] = lambda o, sizes: 0
    module: str | None = None
    misfit: Callable[[Any, Any], Misfit | None] = lambda o, block: None
    split: Callable[[Any, int], Split | str] | None = None
    short: Callable[[Any], str] = lambda o: ""

    def on(self, settings: Settings) -> bool:
        """Whether the stack's settings turn it on."""
        return any(settings[name] for name in self.switch)

    def note(self, attrs: Mapping[str, Any]) -> str:
        """A node in a few words."""
        return self.short(self.complete(attrs))

    def complete(self, attrs: Mapping[str, Any]) -> Any:
        """A node's attributes with attribute access."""
        return SimpleNamespace(**self.with_defaults(attrs))

    def with_defaults(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """Its attributes of a node, those left out filled in where there is a default."""
        known = [option for option in self.attributes if option.name in attrs or option.fault(option.default) is None]
        return {option.name: plain(attrs.get(option.name, option.default)) for option in known}


# Settings of the stack --------------------------------------------------------------------------------------------

POSITION_SETTINGS = (
    *rotary.ROTARY_SETTINGS,
    Option("rel_pos_bias", bool, False, "a learned bias for each bucket of distances, as in T5 (arXiv:1910.10683)"),
    Option("rel_pos_num_buckets", int, 32, "buckets of T5's bias", least=4),
    Option("rel_pos_max_distance", int, 128, "distance from which on T5's bias has one bucket", least=2),
    Option(
        "rel_pos_scale",
        float,
        None,
        "factor of what T5's bias has learned, 1 in T5 itself; none: the square root of dim_head",
        above=0,
        optional=True,
    ),
    Option("dynamic_pos_bias", bool, False, "a bias computed from the distance by a small network (arXiv:2108.00154)"),
    Option(
        "dynamic_pos_bias_log_distance",
        bool,
        False,
        "give that network the logarithm of the distance (arXiv:2111.09883)",
    ),
    Option("dynamic_pos_bias_mlp_depth", int, 2, "hidden layers of that network", least=1),
    Option("dynamic_pos_bias_norm", bool, False, "LayerNorm in that network"),
    Option("alibi_pos_bias", bool, False, "a bias that falls with distance, ALiBi (arXiv:2108.12409)"),
    Option("alibi_num_heads", int, None, "heads with ALiBi's bias; none: all", least=1, optional=True),
    Option("alibi_learned", bool, False, "learn the slopes of ALiBi's bias"),
    Option("alibi_scale", float, 1.0, "factor of ALiBi's bias (Falcon-RW: dim_head**-0.5, arXiv:2306.01116)", above=0),
)

# Settings that mean nothing without one of others → these; `name=value` where it has to be that.
POSITION_NEEDS: dict[str, tuple[str, ...]] = {
    **rotary.ROTARY_NEEDS,
    "rel_pos_num_buckets": ("rel_pos_bias",),
    "rel_pos_max_distance": ("rel_pos_bias",),
    "rel_pos_scale": ("rel_pos_bias",),
    "dynamic_pos_bias_log_distance": ("dynamic_pos_bias",),
    "dynamic_pos_bias_mlp_depth": ("dynamic_pos_bias",),
    "dynamic_pos_bias_norm": ("dynamic_pos_bias",),
    "alibi_num_heads": ("alibi_pos_bias",),
    "alibi_learned": ("alibi_pos_bias",),
    "alibi_scale": ("alibi_pos_bias",),
}

# Schemes ----------------------------------------------------------------------------------------------------------


def _rotary_misfit(o: Any, block: Any) -> Misfit | None:
    found = rotary.mismatch(o, block)
    return None if found is None else Misfit(*found)


def _heads_misfit(o: Any, block: Any) -> Misfit | None:
    if o.heads == block.heads:
        return None
    return Misfit(f"a position bias of {o.heads} heads does not fit {block.heads} heads")


def _t5_misfit(o: Any, block: Any) -> Misfit | None:
    exact = o.buckets // (2 if o.causal else 4)
    if o.max_distance <= exact:
        problem = (
            f"rel_pos_max_distance={o.max_distance} must be above {exact}, the distances with a bucket of their own"
        )
        return Misfit(problem)
    if o.causal != bool(getattr(block, "causal", False)):
        return Misfit("T5's bias of causal attention does not fit attention that is not causal") if o.causal else None
    return _heads_misfit(o, block)


def _alibi_misfit(o: Any, block: Any) -> Misfit | None:
    if o.biased > o.heads:
        return Misfit(f"alibi_num_heads={o.biased} is more than the block's {o.heads} heads")
    return _heads_misfit(o, block)


def _dynamic_shapes(o: Any) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for layer in range(o.depth):
        shapes |= {f"layers.{layer}.weight": (o.hidden, o.hidden if layer else 1), f"layers.{layer}.bias": (o.hidden,)}
        if o.norm:
            shapes |= {f"norms.{layer}.weight": (o.hidden,), f"norms.{layer}.bias": (o.hidden,)}
    return shapes | {"to_bias.weight": (o.heads, o.hidden), "to_bias.bias": (o.heads,)}


def _dynamic_flops(o: Any, sizes: Sizes) -> int:
    """The network runs once for each distance, to either side."""
    weights = sum(
        math.prod(shape) for name, shape in _dynamic_shapes(o).items() if name.endswith("weight") and len(shape) == 2
    )
    return 2 * max(0, 2 * sizes.seq - 1) * weights


def _dynamic_saved(o: Any, sizes: Sizes) -> int:
    """Of each distance: itself, and what each layer, its norm and its activation read and give."""
    return max(0, 2 * sizes.seq - 1) * int(1 + o.depth * (2 * o.hidden + o.norm * (o.hidden + 2)))


def _by_heads(cuts: Mapping[str, Cut]) -> Callable[[Any, int], Split | str]:
    def split(o: Any, ranks: int) -> Split | str:
        return uneven("heads", o.heads, ranks) if o.heads % ranks else Split({"heads": o.heads // ranks}, cuts)

    return split


def _alibi_split(o: Any, ranks: int) -> Split | str:
    if o.biased != o.heads:
        return f"alibi_num_heads={o.biased}: some of the {o.heads} heads have no bias"
    if o.heads % ranks:
        return uneven("heads", o.heads, ranks)
    return Split({"heads": o.heads // ranks, "biased": o.heads // ranks}, {"log_slopes": Cut()})


_HEADS = Option("heads", int, None, "attention heads that it biases", least=1)

SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            name="rotary",
            short=rotary.note,
            title="rotary positions",
            read_by="rotary",
            switch=("rotary_pos_emb", "rotary_xpos"),
            attributes=rotary.ROTARY_ATTRIBUTES,
            of=rotary.attributes,
            asks=rotary.asked_for,
            size="dim",
            node="rotary",
            misfit=_rotary_misfit,
        ),
        Scheme(
            name="t5",
            short=lambda o: "T5 bias",
            title="T5 bias",
            read_by="bias",
            switch=("rel_pos_bias",),
            attributes=(
                _HEADS,
                Option("causal", bool, False, "all buckets are for the past"),
                Option("buckets", int, 32, "buckets of distances", least=4),
                Option("max_distance", int, 128, "from where on there is one bucket", least=2),
                Option("scale", float, 8.0, "factor of the learned values"),
            ),
            of=lambda settings, block: {
                "heads": block.heads,
                "causal": bool(getattr(block, "causal", False)),
                "buckets": settings["rel_pos_num_buckets"],
                "max_distance": settings["rel_pos_max_distance"],
                "scale": block.dim_head**0.5 if settings["rel_pos_scale"] is None else settings["rel_pos_scale"],
            },
            asks=lambda o, block: {
                "rel_pos_bias": True,
                "rel_pos_num_buckets": o.buckets,
                "rel_pos_max_distance": o.max_distance,
                "rel_pos_scale": None if o.scale == block.dim_head**0.5 else o.scale,
            },
            size="heads",
            node="t5_bias",
            shapes=lambda o: {"buckets.weight": (o.buckets, o.heads)},
            module="xt_blocks.positions.bias:T5Bias",
            misfit=_t5_misfit,
            split=_by_heads({"buckets.weight": Cut(axis=1)}),
        ),
        Scheme(
            name="dynamic",
            short=lambda o: "dynamic bias",
            title="dynamic bias",
            read_by="bias",
            switch=("dynamic_pos_bias",),
            attributes=(
                _HEADS,
                Option("hidden", int, None, "features of its network", least=1),
                Option("depth", int, 2, "hidden layers", least=1),
                Option("log_distance", bool, False, "reads the logarithm of the distance"),
                Option("norm", bool, False, "LayerNorm after each hidden layer"),
            ),
            of=lambda settings, block: {
                "heads": block.heads,
                "hidden": max(1, block.dim // 4),
                "depth": settings["dynamic_pos_bias_mlp_depth"],
                "log_distance": settings["dynamic_pos_bias_log_distance"],
                "norm": settings["dynamic_pos_bias_norm"],
            },
            asks=lambda o, block: {
                "dynamic_pos_bias": True,
                "dynamic_pos_bias_mlp_depth": o.depth,
                "dynamic_pos_bias_log_distance": o.log_distance,
                "dynamic_pos_bias_norm": o.norm,
            },
            size="heads",
            node="dynamic_bias",
            shapes=_dynamic_shapes,
            flops=_dynamic_flops,
            saved=_dynamic_saved,
            module="xt_blocks.positions.bias:DynamicBias",
            misfit=_heads_misfit,
            split=_by_heads({"to_bias.weight": Cut(), "to_bias.bias": Cut()}),
        ),
        Scheme(
            name="alibi",
            short=lambda o: (
                f"ALiBi on {o.biased} heads"
                + (", learned" if o.learned else "")
                + (f", times {o.scale:.3g}" if o.scale != 1 else "")
            ),
            title="ALiBi",
            read_by="bias",
            switch=("alibi_pos_bias",),
            attributes=(
                _HEADS,
                Option("biased", int, None, "how many of them have a slope", least=1),
                Option("learned", bool, False, "whether the slopes are learned"),
                Option("scale", float, 1.0, "factor of the bias", above=0),
            ),
            of=lambda settings, block: {
                "heads": block.heads,
                "biased": block.heads if settings["alibi_num_heads"] is None else settings["alibi_num_heads"],
                "learned": settings["alibi_learned"],
                "scale": settings["alibi_scale"],
            },
            asks=lambda o, block: {
                "alibi_pos_bias": True,
                "alibi_num_heads": None if o.biased == o.heads else o.biased,
                "alibi_learned": o.learned,
                "alibi_scale": o.scale,
            },
            size="heads",
            node="alibi",
            shapes=lambda o: {"log_slopes": (o.biased, 1, 1)} if o.learned else {},
            module="xt_blocks.positions.bias:ALiBi",
            misfit=_alibi_misfit,
            split=_alibi_split,
        ),
    )
}

# Schemes in whose presence a model has no absolute positions, as the users of x-transformers expect.
REPLACE_ABSOLUTE = frozenset({"rotary", "t5"})


def readers(kind: Kind, settings: Settings, own: Settings) -> list[tuple[Scheme, dict[str, Value]]]:
    """The schemes that a block of this kind reads, with the settings as it has them.

    Args:
        own: what the block says of positions, by the names of settings; it wins over the stack's.
    """
    here = {**settings, **own}
    return [
        (scheme, here)
        for scheme in SCHEMES.values()
        if scheme.read_by in kind.inputs and scheme.on(here) and own.get(scheme.switch[0]) is not False
    ]


def meaningful(settings: Settings) -> set[str]:
    """The settings of POSITION_NEEDS that mean something beside these others."""
    return {name for name, needed in POSITION_NEEDS.items() if any(_holds(one, settings) for one in needed)}


def _holds(one: str, settings: Settings) -> bool:
    name, _, value = one.partition("=")
    return settings[name] == value if value else bool(settings[name])
