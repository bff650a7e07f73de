"""Feedforward `f`: two linear layers with an activation, or a gate, between them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..activations import ACTIVATIONS, SAVED_BY_ACTIVATIONS
from ..kinds import Kind, Shape, Sizes
from ..lora import lora_products, lora_rank, lora_saved, lora_shapes, lora_step
from ..options import Option, Value
from ..split import Cut, Split, uneven
from .dropout import dropout_step, sublayer_dropout
from .words import activated, biased

_MULT = 4


def _ff_inner(o: Any) -> int:
    return int(o.dim * o.mult) if o.inner is None else int(o.inner)


def _ff_shapes(o: Any) -> dict[str, Shape]:
    inner = o.inner
    hidden = (2 if o.glu else 1) * inner
    shapes: dict[str, Shape] = {"to_hidden.weight": (hidden, o.dim), "to_out.weight": (o.dim, inner)}
    if not o.no_bias:
        shapes |= {"to_hidden.bias": (hidden,), "to_out.bias": (o.dim,)}
    if o.glu_mult_bias:
        shapes["mult_bias"] = (inner,)
    if o.post_act_ln:
        shapes |= {"norm.weight": (inner,), "norm.bias": (inner,)}
    return shapes | lora_shapes(o, (hidden,))


def _ff_derived(o: Any) -> dict[str, Value]:
    switched = "silu" if o.swish else "relu_squared" if o.relu_squared else "gelu"
    return {"inner": _ff_inner(o), "activation": switched if o.activation is None else o.activation}


def _ff_check(o: Any) -> str | None:
    if o.swish and o.relu_squared:
        return "swish and relu_squared are both set; a feedforward has one activation"
    if o.activation is not None and (o.swish or o.relu_squared):
        switch = "swish" if o.swish else "relu_squared"
        return f"activation={o.activation} and {switch} are both set; a feedforward has one activation"
    if o.inner is not None and o.mult != _MULT:
        return f"inner={o.inner} and mult={o.mult} are both set; give one"
    if o.gate_first and not o.glu:
        return "gate_first is set, but it needs glu"
    if o.glu_mult_bias and not o.glu:
        return "glu_mult_bias is set, but it needs glu"
    if o.gate_scale != 1 and not o.glu:
        return "gate_scale is set, but it needs glu"
    if _ff_inner(o) < 1:
        return f"mult={o.mult} of dim={o.dim} leaves no hidden features"
    return None


def feedforward_split(o: Any, ranks: int) -> Split | str:
    """By hidden features; of a GLU those that are gated, and the gate, each by itself."""
    if o.inner % ranks:
        return uneven("inner", o.inner, ranks)
    hidden = Cut(parts=(o.inner,) * (2 if o.glu else 1))
    cuts = {"to_hidden.weight": hidden, "to_hidden.bias": hidden, "to_out.weight": Cut(axis=1)}
    cuts |= dict.fromkeys(("mult_bias", "norm.weight", "norm.bias"), Cut())
    cuts["lora.up_weight"] = replace(hidden, axis=1)
    sums = 2 if o.post_act_ln else 0
    return Split({"inner": o.inner // ranks, "mult": _MULT}, cuts, once=("to_out.bias",), sums=sums)


def _ff_flops(o: Any, sizes: Sizes) -> int:
    layers = o.dim * int(o.inner) * (3 if o.glu else 2)
    return 2 * sizes.batch * sizes.seq * (layers + lora_products(o, ((2 if o.glu else 1) * o.inner,)))


def ff_saved(o: Any, tokens: float) -> float:
    """Numbers that it saves: its input, hidden features before and after the activation, and what the gate makes."""
    before = (2 if o.glu else 1) * o.inner if o.glu or SAVED_BY_ACTIVATIONS[o.activation] else 0
    after = o.inner * (max(0, SAVED_BY_ACTIVATIONS[o.activation] - 1) + (2 if o.glu else 1))
    after += o.inner * ((o.glu and o.gate_scale != 1) + o.glu_mult_bias + o.post_act_ln + (o.dropout > 0))
    return tokens * (o.dim_in + before + after + lora_saved(o, (1,)))


def _ff_switch(name: str, doc: str) -> Option:
    return Option(name, bool, False, doc, setting=f"ff_{name}")


def _ff_steps(o: Any) -> list[tuple[str, str]]:
    inner, activation = o.inner, ACTIVATIONS[o.activation]
    gate = "gate first" if o.gate_first else "gate"
    gate += "" if o.gate_scale == 1 else f" × {o.gate_scale:g}"
    return [
        (f"linear {o.dim:,} → {(2 if o.glu else 1) * inner:,}{biased(not o.no_bias)}", ""),
        *lora_step(o),
        (f"{activation} {gate}" if o.glu else activation, ""),
        *([("× a learned gain", "")] if o.glu_mult_bias else []),
        *([("LayerNorm", "")] if o.post_act_ln else []),
        *([(f"dropout {o.dropout:g}", "")] if o.dropout else []),
        (f"linear {inner:,} → {o.dim:,}{biased(not o.no_bias)}", ""),
        *dropout_step(o),
    ]


ZERO_INIT = Option(
    "zero_init_branch_output",
    bool,
    False,
    "the last linear layer starts at zero",
    setting="zero_init_branch_output",
    area="norms and residuals",
)

FEEDFORWARD = Kind(
    name="f",
    title="feedforward",
    prefix="ff",
    options=(
        Option("mult", float, _MULT, "hidden features as a multiple of dim", setting="ff_mult", least=0),
        Option(
            "inner",
            int,
            None,
            "hidden features as a number; none: mult times dim",
            setting="ff_inner",
            least=1,
            optional=True,
        ),
        Option(
            "activation",
            str,
            None,
            "activation of the hidden features; none: what swish or relu_squared says, else gelu",
            setting="ff_activation",
            choices=tuple(ACTIVATIONS),
            optional=True,
        ),
        _ff_switch("glu", "gate the hidden features (arXiv:2002.05202)"),
        _ff_switch("gate_first", "the gate is the first half of the hidden layer's outputs, not the second (LLaMA)"),
        Option(
            "gate_scale",
            float,
            1.0,
            "a fixed factor of the gate, before its activation (Falcon-H1, arXiv:2507.22448)",
            setting="ff_gate_scale",
            above=0,
        ),
        _ff_switch("glu_mult_bias", "a learned gain for each gated feature, at first one"),
        _ff_switch("swish", "SiLU in place of GELU (arXiv:1710.05941)"),
        _ff_switch("relu_squared", "ReLU squared in place of GELU (arXiv:2109.08668)"),
        _ff_switch("post_act_ln", "LayerNorm after the activation (NormFormer, arXiv:2110.09456)"),
        _ff_switch("no_bias", "linear layers without a bias (PaLM, arXiv:2204.02311)"),
        lora_rank("ff", "the hidden features"),
        Option(
            "dropout",
            float,
            0.0,
            "dropout of the hidden features",
            setting="ff_dropout",
            least=0,
            below=1,
            area="regularisers",
        ),
        sublayer_dropout("ff"),
        ZERO_INIT,
    ),
    shapes=_ff_shapes,
    flops=_ff_flops,
    saved=lambda o, sizes, inputs: ff_saved(o, sizes.batch * sizes.seq),
    state=lambda o: {},
    module="xt_blocks.blocks.feedforward:FeedForward",
    check=_ff_check,
    derive=_ff_derived,
    split=feedforward_split,
    steps=_ff_steps,
    summary=lambda o: [f"{activated(o.activation, o.glu)} {o.inner:,}"],
    also=("ff", "ffn", "mlp", "feedforward", "feed_forward"),
    words={
        "gate_first": "gate in the first half",
        "gate_scale": "gate × {}",
        "glu_mult_bias": "learned gain of the gate",
        "post_act_ln": "LayerNorm after the activation",
        "no_bias": "no biases in feedforward",
        "lora_rank": "feedforward LoRA of rank {}",
        "dropout": "feedforward dropout {}",
        "sublayer_dropout": "dropout {} after feedforward",
        "zero_init_branch_output": "output layers at zero at first",
    },
    builtin=True,
)
