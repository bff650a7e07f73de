"""The modules of a graph's nodes."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

from torch import nn

from blockdsl.registry.kinds import BLOCK_OPTIONS, kinds, norm_of
from blockdsl.registry.positions import SCHEMES

from ..blocks.block import Block
from ..blocks.init import init_xavier
from ..blocks.residual import ResidualConnection

if TYPE_CHECKING:
    from blockdsl import BlockGraph


def block_module(graph: BlockGraph, node: str) -> Block:
    """The module of a block's node."""
    attrs = graph.nx.nodes[node]
    kind, options = kinds()[attrs["kind"]], dict(attrs["options"])
    around = {option.name: options.pop(option.name) for option in BLOCK_OPTIONS}
    make = pkgutil.resolve_name(kind.module) if isinstance(kind.module, str) else kind.module
    layer = make(dim=graph.dim, **options)
    if around["init_gain"] is not None:
        init_xavier(layer, around["init_gain"])
    return Block(
        layer,
        graph.dim,
        norm_of(around),
        around["pre_norm"],
        around["layer_dropout"],
        around["sandwich_norm"],
        ResidualConnection(
            graph.dim, around["scale_residual"], around["scale_residual_constant"], around["gate_residual"]
        ),
    )


def position_modules(graph: BlockGraph) -> tuple[nn.ModuleDict, dict[str, tuple[int, int | None]]]:
    """Bias modules by node, and for rotations by node: features and xPos's base."""
    modules, rotary = {}, {}
    for node in graph.nodes("position"):
        attrs = graph.nx.nodes[node]
        scheme = SCHEMES[attrs["scheme"]]
        own = scheme.with_defaults(attrs)
        if scheme.module is None:
            rotary[node] = (own["dim"], own["xpos_scale_base"])
        else:
            modules[node] = pkgutil.resolve_name(scheme.module)(**own)
    return nn.ModuleDict(modules), rotary
