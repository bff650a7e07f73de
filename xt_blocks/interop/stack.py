"""A stack of blocks: norms, residuals, feedforwards, and what of a stack x-transformers builds in another way.

What is set so that the loaded model computes what x-transformers does:

- 1.x has no final norm on a bare stack, and in a wrapper a LayerNorm whatever the stack's norms are. In a post-norm
  stack that one takes the place of the last block's norm.
- deepnorm of 1.x scales residuals by (2 · depth)^¼, whatever the blocks of a layer are.
- With gate_residual both releases ignore scale_residual_constant.
- Both take the half of a macaron's feedforward before its sandwich norm, here after it.
- A GLU keeps its bias under ff_no_bias.
- Residual streams are summed, each becoming the sum of all: 2.31 normalises their mix over an axis of one number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from blockdsl.language.macros import par_layout
from blockdsl.registry.norms import NORM_DETAILS, NORMS, Norm
from blockdsl.registry.residual_streams import SINKHORN_ITERS
from blockdsl.registry.settings import deepnorm_settings

from ..blocks.attention import Attention, CrossAttention
from ..blocks.block import Block
from ..blocks.feedforward import FeedForward
from ..blocks.norms import norm
from ..blocks.residual import HyperConnection
from ..runtime.plan import Step
from ..runtime.stack import Stack
from .attention import ScoreContext, load_attention
from .linear import load_bias, load_linear, load_norm
from .positions import load_biases, load_rotations
from .reader import Reader
from .wiring import check_wiring, load_entering, load_skips, warn_of_memories

if TYPE_CHECKING:
    from blockdsl import BlockGraph

_USUAL = {option.name: option.default for option in NORM_DETAILS}

Attributes = list[dict[str, Any]]
"""Of the nodes of one block: all that are tied to it, in the graph of the stack and in that of the model around it."""


def unwrapped(module: Any) -> Any:
    """The module inside of torch.compile's and data parallelism's wrappers."""
    inner = getattr(module, "_orig_mod", getattr(module, "module", None))
    return unwrapped(inner) if isinstance(inner, nn.Module) else module


def load_alone(stack: Stack, state: Reader) -> None:
    """A stack that no model is around."""
    if state.old and not all(block.pre_norm for block in stack.blocks.values()):
        state.refuse(
            "pre_norm=False: a bare stack of 1.x has no norm after its last block, which a graph cannot express"
        )
    _load_layers(stack, [stack.graph], state, last_norm=None)
    if state.old:
        _set_final_norm(stack, [stack.graph], None, state)
    else:
        _load_final_norm(stack, state)


def load_within(model: Any, state: Reader) -> None:
    """The stack of a model. 1.x has the final norm beside it."""
    stack, own = unwrapped(model.attn_layers), state.under("attn_layers.")
    warn_of_memories(model, stack, state)
    graphs = [stack.graph, *([] if model.graph is stack.graph else [model.graph])]
    _load_layers(stack, graphs, own, last_norm=state.under("norm.") if state.old else None)
    if not state.old:
        _load_final_norm(stack, own)
    elif not _is_post_norm(stack):
        load_norm(_set_final_norm(stack, graphs, "layernorm", state), state.under("norm."), shifted=False)


def stays_pre_norm(stack: Stack, state: Reader) -> bool:
    """Whether deepnorm made this stack post-norm, and the weights are of one that is not."""
    options = [stack.graph.nx.nodes[step.node]["options"] for step in stack.plan if step.block is not None]
    post_norm = all(own["init_gain"] is not None and not own["pre_norm"] for own in options)
    return post_norm and bool(state.names("layers.0.0.0."))


def _is_post_norm(stack: Stack) -> bool:
    return isinstance(stack.norm, nn.Identity)


def _load_final_norm(stack: Stack, state: Reader) -> None:
    if not _is_post_norm(stack):
        load_norm(stack.norm, state.under("final_norm."), _less_one(stack, state))


def _less_one(stack: Stack, state: Reader) -> bool:
    """Whether gains are stored less one: in 2.x, unless norm_add_unit_offset is false."""
    return not state.old and getattr(stack, "norm_add_unit_offset", True)


def _set_final_norm(stack: Stack, graphs: Sequence[BlockGraph], name: str | None, state: Reader) -> nn.Module:
    state.set([graph.nx.nodes[graph.end] for graph in graphs], norm=name, **_USUAL)
    new = _norm(None if name is None else Norm.of(name, {}), stack)
    state.replace(stack, "norm", new)
    return new


def _norm(spec: Norm | None, stack: Stack) -> nn.Module:
    """A new norm with the device and dtype of the stack's parameters."""
    like = next(stack.parameters())
    return norm(spec, stack.dim).to(like.device, like.dtype)


def _load_layers(stack: Stack, graphs: Sequence[BlockGraph], state: Reader, last_norm: Reader | None) -> None:
    """
    Args:
        graphs: of the stack and of the model around it, to keep in step.
        last_norm: of 1.x, where the norm after the last block is.
    """
    steps = {step.node: step for step in stack.plan if step.block is not None}
    if stack.condition_mlp is not None:
        load_linear(stack.condition_mlp[0], state, "adaptive_mlp.0")
    _check(stack, list(steps.values()), state)
    load_entering(stack, state)
    rotations = load_rotations(stack, graphs, state)
    constant = _old_deepnorm(stack, state) if state.old else None
    owners = _owners(stack, steps)
    load_skips(stack, owners, state)
    for i, owner in enumerate(owners):  # 2.x has tied blocks once
        block: Any = stack.blocks[owner]
        attributes = [graph.nx.nodes[node] for graph in graphs for node in steps if steps[node].block == owner]
        own = state.under(f"layers.{i}.")
        if attributes[0]["options"]["branch_scale"] != 1 and (state.old or block.sandwich_norm is not None):
            state.refuse("branch_scale: 1.x of x-transformers does not have it, 2.x before the norm of sandwich_norm")
        if block.orthogonal:
            state.refuse("orthog_residual: x-transformers projects all tokens of a row at once")
        # 1.x leaves out the last block's post-norm: the wrapper's norm takes its place
        _load_norms(block, stack, attributes, own, last_norm if i == len(owners) - 1 else None)
        _load_layer_scale(block, own, _less_one(stack, state))
        _load_residual(block, attributes, own, constant)
        step, layer = steps[owner], block.layer
        if isinstance(layer, Attention | CrossAttention):
            scores = ScoreContext(bool(step.biases), step.keep_scores)
            alike = step.rotary is None or stack.rotary[step.rotary].interleaved  # their order is ours
            rotated = 0 if step.rotary is None or alike else rotations[step.rotary]
            load_attention(layer, own.under("1."), rotated, scores, [each["options"] for each in attributes])
        elif isinstance(layer, FeedForward):
            scale = 1.0 if block.sandwich_norm is None else step.use.scale
            _load_feedforward(layer, attributes, own.under("1.ff."), scale)
        else:
            raise TypeError(f"x-transformers has no block like {type(layer).__name__}")
    state.change(lambda: stack.follow(stack.graph))
    load_biases(stack, state)


def _owners(stack: Stack, steps: Mapping[str, Step]) -> list[str]:
    """The blocks in the order in which x-transformers numbers them.

    That is where they first run, unless ties that are called x0, x1, ... number them all, as for layers_execute_order.
    """
    owners = list(dict.fromkeys(step.block for step in steps.values() if step.block is not None))
    ties = [stack.graph.nx.nodes[owner]["tie"] for owner in owners]
    numbered = [f"x{i}" for i in range(len(owners))]
    return [owners[ties.index(tie)] for tie in numbered] if {*ties} == {*numbered} else owners


def _check(stack: Stack, steps: list[Step], state: Reader) -> None:
    """What x-transformers cannot build, or computes otherwise."""
    nodes = {step.node: stack.graph.nx.nodes[step.node] for step in steps}
    check_wiring(stack, state)
    if stack.softcap is not None and state.old:
        state.refuse("output_softcap: 1.x does not have it")
    halves = {nodes[step.node]["scale"] for step in steps if nodes[step.node]["kind"] == "f"}
    others = {nodes[step.node]["scale"] for step in steps if nodes[step.node]["kind"] != "f"}
    if len(halves) > 1 or not halves <= {1.0, 0.5} or not others <= {1.0}:
        state.refuse("half steps: x-transformers has them of all feedforwards (macaron), or of none")
    for step in steps:
        if step.block != step.node and state.old:
            state.refuse(f"{step.node} is tied to another block, and 1.x cannot tie blocks")
    if any(node["shift"] and node["kind"] == "f" for node in nodes.values()):
        state.warn(
            "shift_tokens: given a mask, a feedforward of x-transformers reads what masked tokens hold, and this "
            "model's reads zeros"
        )
    windows = any(node["options"].get("max_attend_past") is not None for node in nodes.values())
    if windows and any(node["kind"] == "c" for node in nodes.values()):
        state.warn(
            "attn_max_attend_past: in x-transformers it is a window of cross-attention too, and this model's "
            "cross-attention sees the whole context"
        )


# Norms and residuals ------------------------------------------------------------------------------------------------


def _load_norms(block: Block, stack: Stack, attributes: Attributes, state: Reader, last: Reader | None) -> None:
    shifted = _less_one(stack, state)
    if block.pre_norm:
        load_norm(block.norm, state.under("0.0."), shifted)
    elif last is None:
        load_norm(block.norm, state.under("0.2."), shifted)
    else:
        new = _norm(Norm.of("layernorm", {}), stack)
        state.replace(block, "norm", new)
        state.set(
            [each["options"] for each in attributes],
            **dict.fromkeys((f"use_{name}" for name in NORMS if name != "layernorm"), False),
            **_USUAL,
        )
        load_norm(new, last, shifted=False)
    if block.sandwich_norm is not None:
        load_norm(block.sandwich_norm, state.under("0.1."), shifted)
    if block.post_norm is not None:
        load_norm(block.post_norm, state.under("0.2."), shifted)


def _load_layer_scale(block: Block, state: Reader, less_one: bool) -> None:
    gain, adaptive = block.layer_scale, block.adaptive_layer_scale
    if block.sandwich_norm is not None and (gain is not None or adaptive is not None):
        state.refuse("layer_scale, use_adaptive_layerscale: x-transformers has them before the norm of sandwich_norm")
    if gain is not None:
        value = state.need("1.gamma", shape=gain.shape)
        state.put(gain, None if value is None else value + less_one, "1.gamma")
    if adaptive is not None:
        load_linear(adaptive.to_gain, state, "1.to_gamma")


_STREAM_WEIGHTS = {
    "norm.weight": "norm.weight",
    "alpha": "static_alpha",
    "alpha_by_token": "dynamic_alpha_fn",
    "alpha_scale": "dynamic_alpha_scale",
    "beta": "static_beta",
    "beta_by_token": "dynamic_beta_fn",
    "beta_scale": "dynamic_beta_scale",
}


def _load_residual(block: Block, attributes: Attributes, state: Reader, constant: float | None) -> None:
    """
    Args:
        constant: scale_residual_constant; None: the block's own.
    """
    residual = block.residual
    if isinstance(residual, HyperConnection):
        for name, theirs in _STREAM_WEIGHTS.items():
            state.fill(residual.get_parameter(name), f"2.{theirs}")
        state.change(lambda: setattr(residual, "mix", "sum"))
        settings = {SINKHORN_ITERS.name: SINKHORN_ITERS.default, "hyper_conn_mix": "sum"}
        state.set([each["options"] for each in attributes], **settings)
        return
    if residual.scale is not None:
        state.fill(residual.scale, "2.residual_scale")
    if residual.gate is not None:
        constant = 1.0
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            state.fill(getattr(residual.gate, name), f"2.gru.{name}")
    if constant is not None:
        state.change(lambda: setattr(residual, "constant", constant))
        state.set([each["options"] for each in attributes], scale_residual_constant=constant)


def _old_deepnorm(stack: Stack, state: Reader) -> float | None:
    """The constant of 1.x's deepnorm, which follows depth; None: it is off."""
    nodes = stack.graph.nodes("block")
    options = [stack.graph.nx.nodes[node]["options"] for node in nodes]
    ours = deepnorm_settings(len(nodes))
    if any(own[name] != ours[name] for own in options for name in ("scale_residual_constant", "init_gain")):
        return None
    macaron = any(stack.graph.nx.nodes[node]["scale"] != 1.0 for node in nodes)
    depths = _depths(tuple(stack.graph.nx.nodes[node]["kind"] for node in nodes), macaron)
    if len(depths) == 1:
        return float((2 * depths.pop()) ** 0.25)
    state.refuse(
        "deepnorm: 1.x takes its constant from depth, which this order of blocks does not tell. In its place give "
        "pre_norm=False, scale_residual=True, scale_residual_constant=(2 * depth) ** 0.25"
    )
    return None


def _depths(kinds: tuple[str, ...], macaron: bool) -> set[int]:
    """The depths at which 1.x has this order of blocks, by depth itself, sandwich_coef or par_ratio."""
    found = set()
    for block in (("a", "f"), ("a", "c", "f"), ("c", "f")):
        block = ("f", *block) if macaron else block
        for depth in range(1, len(kinds) + 1):
            sandwiches = {("a",) * s + block * (depth - s) + ("f",) * s for s in range(depth + 1)}
            if kinds in sandwiches or _is_par(kinds, depth, block):
                found.add(depth)
    return found


def _is_par(kinds: tuple[str, ...], depth: int, block: tuple[str, ...]) -> bool:
    total = depth * len(block)
    if total != len(kinds):
        return False
    for ratio in range(2, total + 1):
        try:
            if par_layout(depth, ratio, block) == kinds:
                return True
        except ValueError:  # no space for a group
            continue
    return False


# Feedforwards -------------------------------------------------------------------------------------------------------


def _load_feedforward(layer: FeedForward, attributes: Attributes, state: Reader, scale: float) -> None:
    """
    Args:
        scale: taken into the last layer, in place of the block's own.
    """
    if layer.gate_scale != 1:
        state.refuse("ff_gate_scale: x-transformers has no factor of the gate")
    if layer.gate_first:
        state.refuse("ff_gate_first: x-transformers has the gate second")
    gives, out = layer.to_hidden, layer.to_out
    biases = [linear.bias for linear in (gives, out)]
    if layer.glu and gives.bias is None and state.has("0.proj.bias"):  # under ff_no_bias their gate keeps its bias
        biases = [nn.Parameter(linear.weight.new_zeros(linear.out_features)) for linear in (gives, out)]
        for linear, bias in zip((gives, out), biases, strict=True):
            state.change(partial(setattr, linear, "bias", bias))
        state.set([each["options"] for each in attributes], no_bias=False)
    name = "0.proj" if layer.glu else "0.0"
    state.fill(gives.weight, f"{name}.weight")
    weight = state.need("3.weight", "2.weight", shape=out.weight.shape)
    state.put(out.weight, None if weight is None else weight * scale, "3.weight")
    if biases[0] is not None:
        load_bias(biases[0], state, f"{name}.bias")
    if biases[1] is not None and out.bias is not None:
        bias = state.need("3.bias", "2.bias", shape=out.bias.shape)
        state.put(out.bias, None if bias is None else bias * scale, "3.bias")
    if layer.mult_bias is not None:
        state.fill(layer.mult_bias, "0.mult_bias")
    if layer.norm is not None:
        load_norm(layer.norm, state.under("1."), shifted=False)
    if scale != 1.0:
        state.set(attributes, scale=1.0)
