"""The modules of a graph's nodes."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.parameter import is_lazy

from blockdsl.errors import GraphError
from blockdsl.registry.injection import injection_shapes
from blockdsl.registry.kinds import BLOCK_OPTIONS, kinds
from blockdsl.registry.norms import norms_of
from blockdsl.registry.positions import SCHEMES
from blockdsl.registry.reads import JOINS
from blockdsl.registry.residual_streams import mixing_shapes

from ..blocks.bidirectional import Bidirectional
from ..blocks.block import Block
from ..blocks.init import init_xavier
from ..blocks.injection import Injection
from ..blocks.join import StreamJoin
from ..blocks.residual import HyperConnection, ResidualConnection
from ..positions.rotary import Rotary

if TYPE_CHECKING:
    from blockdsl import BlockGraph


def block_module(graph: BlockGraph, node: str) -> Block:
    """The module of a block's node."""
    attrs = graph.nx.nodes[node]
    kind, options = kinds()[attrs["kind"]], attrs["options"]
    around = {option.name: options[option.name] for option in BLOCK_OPTIONS}
    of_stream, of_output, of_sum = norms_of(options)
    make = pkgutil.resolve_name(kind.module) if isinstance(kind.module, str) else kind.module
    completed = graph.completed(node)
    own = {option.name: options[option.name] for option in kind.options}
    own |= {"uses": completed.uses} if kind.by_use(options) else {}
    layer = make(dim=graph.dim, **own)
    if kind.both_ways and options["bidirectional"]:
        layer = Bidirectional(layer, make(dim=graph.dim, **own))
    _check_shapes(f"kind '{kind.name}'", kind.shapes(completed), layer)
    if around["init_gain"] is not None:
        init_xavier(layer, around["init_gain"])
    return Block(
        layer,
        graph.dim,
        of_stream,
        around["pre_norm"],
        around["layer_dropout"],
        of_output,
        _residual(graph, node, around),
        around["layer_scale"],
        of_sum,
        graph.condition[1] if graph.sources(node, "condition") else 0,
        around["use_adaptive_layerscale"],
        around["orthog_residual"],
        completed.dim_in,
    )


def injection_module(graph: BlockGraph) -> Injection | None:
    """What makes of the stack's input what branches read; None: they read the stream alone."""
    if not graph.of_all_blocks("reinject_input"):
        return None
    gate = graph.of_all_blocks("learned_reinject_input_gate")
    module = Injection(graph.dim, gate)
    _check_shapes("an injected input", injection_shapes(graph.dim, gate), module)
    return module


def join_module(graph: BlockGraph, node: str) -> StreamJoin:
    """The module of a read's node."""
    attrs, values = graph.nx.nodes[node], len(graph.sources(node, "read"))
    module = StreamJoin(graph.dim, values, attrs["join"], attrs["init"])
    _check_shapes(f"a read by {attrs['join']}", JOINS[attrs["join"]].shapes(graph.dim, values), module)
    return module


def _residual(graph: BlockGraph, node: str, options: Mapping[str, Any]) -> ResidualConnection | HyperConnection:
    if (streams := options["num_residual_streams"]) == 1:
        constant = options["scale_residual_constant"]
        return ResidualConnection(graph.dim, options["scale_residual"], constant, options["gate_residual"])
    first = graph.nodes("block").index(node)  # blocks take turns
    mix, iterations = options["hyper_conn_mix"], options["hyper_conn_sinkhorn_iters"]
    module = HyperConnection(graph.dim, streams, first, mix, iterations)
    _check_shapes("a mix of residual streams", mixing_shapes(graph.dim, streams), module)
    return module


def condition_module(graph: BlockGraph) -> nn.Sequential | None:
    """What readers of the condition get of it, (..., features); None: the condition itself."""
    dim, features = graph.condition
    if all(graph.nx.nodes[node]["expansion"] is None for node in graph.nodes("condition")):
        return None
    return nn.Sequential(nn.Linear(dim, features, bias=False), nn.SiLU())


def position_modules(graph: BlockGraph) -> tuple[nn.ModuleDict, dict[str, Rotary]]:
    """Bias modules by node, and rotations by node."""
    modules, rotary = {}, {}
    for node in graph.nodes("position"):
        attrs = graph.nx.nodes[node]
        scheme = SCHEMES[attrs["scheme"]]
        own = scheme.with_defaults(attrs)
        if scheme.module is None:
            rotary[node] = Rotary(**{name: value for name, value in own.items() if value is not None})
        else:
            modules[node] = pkgutil.resolve_name(scheme.module)(**own)
            _check_shapes(f"position scheme '{attrs['scheme']}'", scheme.shapes(scheme.complete(attrs)), modules[node])
    return nn.ModuleDict(modules), rotary


def _check_shapes(owner: str, declared: Mapping[str, tuple[int, ...]], module: nn.Module) -> None:
    """What is declared is what costs are counted by, so it has to be what there is.

    Raises:
        GraphError: a parameter has another shape than declared, is not declared, or is not there.
    """
    there = {name: p for name, p in module.named_parameters() if not is_lazy(p)}
    for name in there.keys() | declared.keys():
        has = tuple(there[name].shape) if name in there else None
        if name not in declared:
            wrong = f"does not declare the parameter '{name}' of its module, of shape {has}"
        elif has is None:
            wrong = f"declares a parameter '{name}' of shape {tuple(declared[name])}, which its module does not have"
        elif has != tuple(declared[name]):
            wrong = f"declares shape {tuple(declared[name])} for its parameter '{name}', which has {has} in its module"
        else:
            continue
        raise GraphError(f"{owner} {wrong} ({type(module).__name__})")
