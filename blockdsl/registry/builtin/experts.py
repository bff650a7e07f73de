"""Experts `e`: a mixture of feedforwards, of which each token reads the few that a router chooses for it.

The name is the E of the hybrids' patterns (`M-M*E`), and reads as what it is: `(a e(experts=8, top=2))*32`.

A token x goes to its `top` experts, and gets the sum of what they make of it by the router's weights:

    y = sum over the chosen e of w_e · expert_e(x)  +  shared(x)

Scores of the experts are a softmax of the router's logits, or a sigmoid of each. The highest scores are chosen. With
`renormalise` the weights of the chosen sum to 1, which of a softmax is a softmax of the chosen logits alone.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from ..activations import ACTIVATIONS
from ..kinds import Kind, Shape, Sizes
from ..options import Option, Value
from ..split import Cut, Split, uneven
from .feedforward import FEEDFORWARD, ZERO_INIT, feedforward_split, ff_saved
from .words import activated, biased

_MULT = 4


def _inner(o: Any) -> int:
    return int(o.dim * o.mult) if o.inner is None else int(o.inner)


def shared_options(o: Any) -> dict[str, Value]:
    """Options of the feedforward that every token reads, from those of the block; it has one if `shared_inner` says."""
    own = {name: getattr(o, name) for name in ("activation", "glu", "gate_first", "no_bias", "dropout")}
    return {"inner": o.shared_inner, "zero_init_branch_output": o.zero_init_branch_output, **own}


def _shared(o: Any) -> Any:
    return FEEDFORWARD.complete(o.dim, shared_options(o), "shared experts")


def _expert_shapes(o: Any) -> dict[str, Shape]:
    """Of what there is of each expert; its number comes first."""
    hidden = (2 if o.glu else 1) * o.inner
    shapes: dict[str, Shape] = {
        "to_hidden.weight": (o.experts, hidden, o.dim),
        "to_out.weight": (o.experts, o.dim, o.inner),
    }
    if not o.no_bias:
        shapes |= {"to_hidden.bias": (o.experts, hidden), "to_out.bias": (o.experts, o.dim)}
    return shapes


def _shapes(o: Any) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {"router.weight": (o.experts, o.dim)}
    if o.router_bias:
        shapes["router.bias"] = (o.experts,)
    shapes |= _expert_shapes(o)
    if o.shared_inner is not None:
        shapes |= {f"shared.{name}": shape for name, shape in FEEDFORWARD.shapes(_shared(o)).items()}
    if o.shared_gate:
        shapes["shared_gate.weight"] = (1, o.dim)
    return shapes


def _derived(o: Any) -> dict[str, Value]:
    return {"inner": _inner(o)}


def _check(o: Any) -> str | None:
    if o.top > o.experts:
        return f"top={o.top} of experts={o.experts}: a token reads as many experts as there are at most"
    if o.inner is not None and o.mult != _MULT:
        return f"inner={o.inner} and mult={o.mult} are both set; give one"
    if _inner(o) < 1:
        return f"mult={o.mult} of dim={o.dim} leaves no hidden features"
    for name, given in (("gate_first", o.gate_first), ("glu_limit", o.glu_limit is not None)):
        if given and not o.glu:
            return f"{name} is set, but it needs glu"
    if o.glu_offset and not o.glu:
        return "glu_offset is set, but it needs glu"
    if o.shared_gate and o.shared_inner is None:
        return "shared_gate is set, but there is no shared expert: set shared_inner"
    if o.glu and o.shared_inner is not None and (o.glu_limit is not None or o.glu_offset):
        return "glu_limit and glu_offset are of experts without a shared one"
    return _groups_check(o)


def _groups_check(o: Any) -> str | None:
    if o.experts % o.groups:
        return f"experts={o.experts} do not divide into groups={o.groups}"
    if o.top_groups > o.groups:
        return f"top_groups={o.top_groups} of groups={o.groups}: a token reads as many groups as there are at most"
    size = o.experts // o.groups
    if o.top > o.top_groups * size:
        return f"top={o.top} experts are more than the {o.top_groups * size} of top_groups={o.top_groups}"
    if o.groups > 1 and o.group_best > size:
        return f"group_best={o.group_best} of a group of {size}: it is judged by as many experts as it has at most"
    return None


def _split(o: Any, ranks: int) -> Split | str:
    """By the hidden features of each expert: ranks have the same to do, whichever are chosen. The router is whole."""
    if o.inner % ranks:
        return uneven("inner", o.inner, ranks)
    options: dict[str, Value] = {"inner": o.inner // ranks, "mult": _MULT}
    hidden = Cut(1, (o.inner,) * (2 if o.glu else 1))
    cuts, once = {"to_hidden.weight": hidden, "to_hidden.bias": hidden, "to_out.weight": Cut(axis=2)}, ["to_out.bias"]
    if o.shared_inner is not None:
        shared = feedforward_split(_shared(o), ranks)
        if isinstance(shared, str):
            return f"shared expert: {shared}"
        options |= {"shared_inner": shared.options["inner"]}
        cuts |= {f"shared.{name}": cut for name, cut in shared.cuts.items()}
        once += [f"shared.{name}" for name in shared.once]
    return Split(options, cuts, tuple(once))


def _flops(o: Any, sizes: Sizes) -> int:
    tokens = sizes.batch * sizes.seq
    router = 2 * tokens * o.dim * (o.experts + o.shared_gate)
    chosen = 2 * tokens * o.top * o.dim * o.inner * (3 if o.glu else 2)
    return router + chosen + (0 if o.shared_inner is None else round(FEEDFORWARD.flops(_shared(o), sizes)))


def _saved(o: Any, sizes: Sizes) -> float:
    """As a feedforward of the chosen experts, and their inputs and outputs in the order of experts, and by token."""
    tokens = sizes.batch * sizes.seq
    own = SimpleNamespace(
        **{**vars(o), "gate_scale": 1, "glu_mult_bias": False, "post_act_ln": False, "lora_rank": None}
    )
    shared = 0 if o.shared_inner is None else ff_saved(_shared(o), tokens) - tokens * o.dim
    clamped = o.inner * (2 * (o.glu_limit is not None) + (o.glu_offset != 0))
    router = o.experts * (2 if o.router == "sigmoid" else 1) + 8 * o.top + 1  # places among the rows are int64
    made = (1 + 2 * o.top) * o.dim + o.top * clamped + router + (o.dim + 1) * o.shared_gate
    return float(ff_saved(own, tokens * o.top) + tokens * made + shared)


def _active(o: Any) -> int:
    of_experts = sum(math.prod(shape) for shape in _expert_shapes(o).values())
    every = sum(math.prod(shape) for shape in _shapes(o).values())
    return every - of_experts // o.experts * (o.experts - o.top)


def _steps(o: Any) -> list[tuple[str, str]]:
    gate = ACTIVATIONS[o.activation]
    if o.glu:
        gate += " gate first" if o.gate_first else " gate"
        gate += "" if o.glu_limit is None else f", within ±{o.glu_limit:g}"
        gate += f", gated + {o.glu_offset:g}" if o.glu_offset else ""
    bias = biased(not o.no_bias)
    steps = [
        f"router {o.dim:,} → {o.experts:,}{biased(o.router_bias)}, {o.router}",
        "" if o.correction_rate is None else f"+ correction for the choice, rate {o.correction_rate:g}",
        f"top {o.top_groups} of {o.groups} groups, by {o.group_best} each" if o.groups > 1 else "",
        f"top {o.top} of {o.experts:,}",
        f"{'weights total' if o.renormalise else 'weights ×'} {o.weight_scale:g}",
        f"linear {o.dim:,} → {(2 if o.glu else 1) * o.inner:,}{bias} by expert",
        gate,
        f"dropout {o.dropout:g}" if o.dropout else "",
        f"linear {o.inner:,} → {o.dim:,}{bias} by expert",
        "weighted sum",
        "" if o.shared_inner is None else f"+ shared expert of {o.shared_inner:,}{', gated' * o.shared_gate}",
    ]
    return [(step, "") for step in steps if step]


def _summary(o: Any) -> list[str]:
    experts = f"top {o.top} of {o.experts:,} × {activated(o.activation, o.glu)} {o.inner:,}"
    return [experts] + ([] if o.shared_inner is None else [f"shared {o.shared_inner:,}"])


def _switch(name: str, default: bool, doc: str) -> Option:
    return Option(name, bool, default, doc, setting=f"moe_{name}")


def _count(name: str, default: int, doc: str) -> Option:
    return Option(name, int, default, doc, setting=f"moe_{name}", least=1)


EXPERTS = Kind(
    name="e",
    title="experts",
    prefix="moe",
    summary=_summary,
    shown=("experts", "top"),
    options=(
        _count("experts", 8, "how many experts there are (arXiv:1701.06538)"),
        _count("top", 2, "experts that each token reads (Mixtral: 2 of 8, arXiv:2401.04088)"),
        Option("mult", float, _MULT, "hidden features of an expert as a multiple of dim", setting="moe_mult", least=0),
        Option(
            "inner",
            int,
            None,
            "hidden features of an expert as a number; none: mult times dim",
            setting="moe_inner",
            least=1,
            optional=True,
        ),
        Option(
            "activation",
            str,
            "gelu",
            "activation of the hidden features",
            setting="moe_activation",
            choices=tuple(ACTIVATIONS),
        ),
        _switch("glu", False, "gate the hidden features (arXiv:2002.05202)"),
        _switch("gate_first", False, "the gate is the first half of the hidden layer's outputs, not the second"),
        Option(
            "glu_limit",
            float,
            None,
            "what is gated is kept from -this to this, and the gate's input below it (gpt-oss: 7, arXiv:2508.10925)",
            setting="moe_glu_limit",
            above=0,
            optional=True,
        ),
        Option(
            "glu_offset",
            float,
            0.0,
            "added to what is gated (gpt-oss: 1, arXiv:2508.10925)",
            setting="moe_glu_offset",
        ),
        _switch("no_bias", False, "experts without a bias, the shared one too"),
        Option(
            "router",
            str,
            "softmax",
            "scores of the experts: a softmax of the router's logits, or a sigmoid of each (DeepSeek-V3, "
            "arXiv:2412.19437)",
            setting="moe_router",
            choices=("softmax", "sigmoid"),
        ),
        _switch("router_bias", False, "the router has a bias (gpt-oss, arXiv:2508.10925)"),
        _switch("renormalise", True, "the weights of a token's experts sum to 1 (Mixtral, arXiv:2401.04088)"),
        Option(
            "weight_scale",
            float,
            1.0,
            "factor of the experts' weights (DeepSeek-V3: 2.5, arXiv:2412.19437)",
            setting="moe_weight_scale",
            above=0,
        ),
        _count("groups", 1, "groups of experts, of which a token reads top_groups (DeepSeek-V2, arXiv:2405.04434)"),
        _count("top_groups", 1, "groups whose experts a token may read"),
        _count(
            "group_best",
            2,
            "a group's score is the sum of its so many best (DeepSeek-V2: 1; V3: 2, arXiv:2412.19437)",
        ),
        Option(
            "correction_rate",
            float,
            None,
            "a bias of the scores by which experts are chosen moves by so much at each optimiser step, up for those "
            "with less than their share of tokens (arXiv:2408.15664); 0: it stays; none: there is none",
            setting="moe_correction_rate",
            least=0,
            optional=True,
        ),
        Option(
            "balance_loss",
            float,
            0.01,
            "coefficient of the loss that balances the experts' load (Switch, arXiv:2101.03961)",
            setting="moe_balance_loss",
            least=0,
            area="regularisers",
        ),
        Option(
            "z_loss",
            float,
            0.0,
            "coefficient of the loss that keeps the router's logits small (ST-MoE, arXiv:2202.08906)",
            setting="moe_z_loss",
            least=0,
            area="regularisers",
        ),
        Option(
            "shared_inner",
            int,
            None,
            "hidden features of an expert that every token reads (DeepSeekMoE, arXiv:2401.06066); none: without",
            setting="moe_shared_inner",
            least=1,
            optional=True,
        ),
        _switch("shared_gate", False, "the shared expert's output is gated by a sigmoid (Qwen2-MoE, arXiv:2407.10671)"),
        Option(
            "dropout",
            float,
            0.0,
            "dropout of the hidden features",
            setting="moe_dropout",
            least=0,
            below=1,
            area="regularisers",
        ),
        ZERO_INIT,
    ),
    inputs=("mask", "observed"),
    shapes=_shapes,
    flops=_flops,
    saved=lambda o, sizes, inputs: _saved(o, sizes),
    active=_active,
    state=lambda o: {},
    module="xt_blocks.blocks.experts:Experts",
    check=_check,
    derive=_derived,
    split=_split,
    steps=_steps,
    also=("moe", "experts", "mixture", "mixture_of_experts", "sparse"),
    words={
        "gate_first": "gate of experts in the first half",
        "glu_limit": "gated values within ±{}",
        "glu_offset": "gated values + {}",
        "no_bias": "no biases in experts",
        "router": {"sigmoid": "sigmoid router"},
        "router_bias": "bias of the router",
        "renormalise": "weights of experts not renormalised",
        "weight_scale": "weights of experts × {}",
        "groups": "{} groups of experts",
        "top_groups": "top {} groups",
        "group_best": {1: "groups by their best", ...: "groups by their {} best"},
        "correction_rate": {0: "fixed correction bias of the router", ...: "correction bias of the router, rate {}"},
        "balance_loss": {0: "", ...: "balance loss {}"},
        "z_loss": "router z-loss {}",
        "shared_gate": "gated shared expert",
        "dropout": "dropout of experts {}",
        "zero_init_branch_output": "output layers at zero at first",
    },
    builtin=True,
)
