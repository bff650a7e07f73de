"""What self-attention and cross-attention share: options, what clashes, parameters, FLOPs, splits and drawings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from ..kinds import Shape, Words
from ..norms import NORM_UNIT_OFFSET
from ..options import Option, Value
from ..split import Cut, Split, shared_by, uneven
from ..state import State
from .dropout import dropout_step, sublayer_dropout
from .gates import GATE_OPTIONS, gate_check, gate_cuts, gate_products, gate_shapes, gate_steps
from .scores import SCORE_OPTIONS, score_check, score_products, score_shapes, score_words
from .switch import switch
from .words import biased, by_gain, counted


def attention_options(residual_setting: str, residual_of: str, *own: Option) -> tuple[Option, ...]:
    return (
        Option("heads", int, 8, "attention heads, each of dim_head features whatever dim is", setting="heads", least=1),
        Option(
            "dim_head",
            int,
            64,
            "features of each head, whatever dim is; none: dim / heads",
            setting="attn_dim_head",
            least=1,
            optional=True,
        ),
        Option(
            "kv_heads",
            int,
            None,
            "heads of keys and values, each shared by heads / kv_heads query heads (arXiv:2305.13245); none: heads",
            setting="attn_kv_heads",
            least=1,
            optional=True,
        ),
        switch("one_kv_head", "one head of keys and values, shared by all query heads (arXiv:1911.02150)"),
        Option(
            "value_dim_head",
            int,
            None,
            "features of each value head; none: dim_head",
            setting="attn_value_dim_head",
            least=1,
            optional=True,
        ),
        Option(
            "dropout",
            float,
            0.0,
            "dropout of the attention weights",
            setting="attn_dropout",
            least=0,
            below=1,
            area="regularisers",
            scores="xt_blocks.kernels.scores.dropout:WeightDropout",
        ),
        sublayer_dropout("attn"),
        *own,
        Option(
            "qk_scale",
            float,
            None,
            "factor of the scores (T5: 1, arXiv:1910.10683); none: dim_head**-0.5",
            setting="attn_qk_scale",
            above=0,
            optional=True,
        ),
        switch("qkv_bias", "queries, keys and values with a bias (GPT-2, Qwen2, arXiv:2407.10671)"),
        switch("k_bias", "keys have a bias too where qkv_bias is on (Whisper: false, arXiv:2212.04356)", default=True),
        switch("out_bias", "the last linear layer with a bias (GPT-2)"),
        switch("shared_kv", "keys serve as values"),
        Option(
            "num_mem_kv",
            int,
            0,
            "learned keys and values that all tokens see (arXiv:1907.01470)",
            setting="attn_num_mem_kv",
            least=0,
        ),
        switch("qk_norm", "queries and keys of unit length (arXiv:2010.04245)"),
        Option("qk_norm_groups", int, 1, "groups of features that are normed", setting="attn_qk_norm_groups", least=1),
        Option(
            "qk_norm_scale",
            float,
            10,
            "what scores of normed queries and keys are multiplied by",
            setting="attn_qk_norm_scale",
            least=0,
        ),
        switch("qk_norm_dim_scale", "a learned gain for each normed feature (arXiv:2302.05442)"),
        Option(
            "qk_rmsnorm",
            str,
            None,
            "RMSNorm of queries and keys: of each head's features, with one gain for all heads (Qwen3, "
            "arXiv:2505.09388) or one each, or of all heads' features (OLMo 2, arXiv:2501.00656); none: no norm",
            setting="attn_qk_rmsnorm",
            choices=("head", "each", "all"),
            optional=True,
        ),
        switch("k_rmsnorm", "RMSNorm of keys alone, each head's features with a gain of their own"),
        switch(
            "value_rmsnorm", "RMSNorm of values, each head's features with a gain of their own (GR-3, arXiv:2507.15493)"
        ),
        Option(
            "qk_rmsnorm_eps",
            float,
            1e-6,
            "what is added to the mean square of queries, keys and values",
            setting="attn_qk_rmsnorm_eps",
            above=0,
        ),
        Option(
            "qk_layernorm",
            str,
            None,
            "LayerNorm of each head's queries and keys, with one gain and bias for all heads (arXiv:2302.05442) or a "
            "gain each without a bias (StableLM 2, arXiv:2402.17834); none: no norm",
            setting="attn_qk_layernorm",
            choices=("head", "each"),
            optional=True,
        ),
        Option(
            "qk_layernorm_eps",
            float,
            1e-5,
            "what is added to the variance of queries and keys",
            setting="attn_qk_layernorm_eps",
            above=0,
        ),
        NORM_UNIT_OFFSET,
        *SCORE_OPTIONS,
        switch(
            "l2_distance", "scores fall with the squared distance of query and key, in place of q·k (arXiv:2006.04710)"
        ),
        switch("laser", "attention to the exponentials of values, and the logarithm of the sum (arXiv:2411.03493)"),
        Option(
            "laser_softcap",
            float,
            15.0,
            "values of laser bounded by c, as c·tanh(value / c)",
            setting="attn_laser_softcap",
            above=0,
        ),
        switch("head_scale", "a learned gain for each head (arXiv:2110.09456)"),
        *GATE_OPTIONS,
        switch("on_attn", "attention on attention: a gated output (arXiv:1908.06954)"),
        switch("tensor_product", "values times a projection of the input, added (arXiv:2208.06061)"),
        switch(
            "zero_init_branch_output",
            "the last linear layer starts at zero",
            "zero_init_branch_output",
            area="norms and residuals",
        ),
        switch(
            "flash",
            "use the fused kernel unless an option needs the scores themselves (arXiv:2205.14135)",
            default=True,
        ),
        switch(
            "residual_attn",
            f"add the {residual_of}'s scores before the softmax: RealFormer (arXiv:2012.11747)",
            residual_setting,
        ),
        Option(
            "scores",
            bool,
            False,
            "a label after an attention: its scores are added before the softmax (arXiv:2012.11747)",
            reads="scores",
        ),
    )


def attention_check(o: Any) -> str | None:
    if o.dim_head is None and o.dim % o.heads:
        return f"heads={o.heads} does not divide dim={o.dim}, which dim_head=none asks for"
    if o.one_kv_head and o.kv_heads not in (None, 1):
        return f"one_kv_head and kv_heads={o.kv_heads} are both set; give one"
    if o.kv_heads is not None and o.heads % o.kv_heads:
        return f"kv_heads={o.kv_heads} does not divide heads={o.heads}"
    features = dim_head(o)
    if o.shared_kv and o.value_dim_head not in (None, features):
        return f"shared_kv gives values the keys' {features} features, but value_dim_head={o.value_dim_head} is set"
    if not o.k_bias and (o.shared_kv or not o.qkv_bias):
        return "k_bias is false, but " + ("shared_kv makes values of keys" if o.shared_kv else "it needs qkv_bias")
    if o.laser_softcap != 15 and not o.laser:
        return "laser_softcap is set, but it needs laser"
    if o.qk_scale is not None and o.qk_norm:
        return f"qk_scale={o.qk_scale} is set, but qk_norm multiplies its scores by qk_norm_scale"
    if o.qk_norm and features % o.qk_norm_groups:
        return f"qk_norm_groups={o.qk_norm_groups} does not divide a head's {features} features"
    names = ("qk_norm", "qk_rmsnorm", "k_rmsnorm", "qk_layernorm")
    if len(norms := [name for name in names if getattr(o, name)]) > 1:
        return f"{' and '.join(norms)} are set; queries and keys have one norm"
    rmsnorm = o.qk_rmsnorm or o.k_rmsnorm or o.value_rmsnorm
    for name, eps, on in (("qk_rmsnorm", 1e-6, rmsnorm), ("qk_layernorm", 1e-5, o.qk_layernorm)):
        if getattr(o, f"{name}_eps") != eps and not on:
            return f"{name}_eps is set, but it needs {name}"
    if not o.qk_norm and (o.qk_norm_groups != 1 or o.qk_norm_dim_scale):
        name = "qk_norm_dim_scale" if o.qk_norm_dim_scale else "qk_norm_groups"
        return f"{name} is set, but it needs qk_norm"
    return score_check(o) or gate_check(o)


def value_sizes(o: Any, whose: str) -> dict[str, Value]:
    """Of values that a block gives, by token of one of two sequences."""
    return {"tokens": whose, "heads of keys and values": o.kv_heads, "features of a value": o.value_dim_head}


def dim_head(o: Any) -> int:
    """Features of a head."""
    return int(o.dim // o.heads if o.dim_head is None else o.dim_head)


def attention_derived(o: Any) -> dict[str, Value]:
    features = dim_head(o)
    return {
        "dim_head": features,
        "kv_heads": 1 if o.one_kv_head else o.heads if o.kv_heads is None else o.kv_heads,
        "value_dim_head": features if o.value_dim_head is None else o.value_dim_head,
    }


def kv_features(o: Any) -> int:
    """Features that keys and values are projected to; none where they are those of another block."""
    if getattr(o, "kv", False):
        return 0
    return o.kv_heads * (o.dim_head + (0 if o.shared_kv else o.value_dim_head))


def projection_shapes(name: str, o: Any, queries: bool, keys: bool, dim: int | None = None) -> dict[str, Shape]:
    """Parameters of a linear layer that makes some of queries, keys and values; parts where keys have no bias.

    `dim` is of what it reads, by default what the block reads.
    """
    shapes: dict[str, Shape] = {}
    for layer, (parts, bias) in _projections(name, o, queries, keys):
        rows = sum(parts.values())
        shapes[f"{layer}.weight"] = (rows, dim or o.dim_in)
        shapes |= {f"{layer}.bias": (rows,)} if bias else {}
    return shapes


def _projections(name: str, o: Any, queries: bool, keys: bool) -> list[tuple[str, tuple[dict[str, int], bool]]]:
    """Linear layers by name, each with its rows by what they make, and whether it has a bias."""
    parts = {
        "q": (o.heads * o.dim_head if queries else 0, o.qkv_bias),
        "k": (o.kv_heads * o.dim_head if keys else 0, o.qkv_bias and o.k_bias),
        "v": (o.kv_heads * o.value_dim_head if keys and not o.shared_kv else 0, o.qkv_bias),
    }
    rows = {part: size for part, (size, _) in parts.items() if size}
    if len({parts[part][1] for part in rows}) == 1:
        return [(name, (rows, parts[next(iter(rows))][1]))]
    return [(f"{name}.parts.{i}", ({part: size}, parts[part][1])) for i, (part, size) in enumerate(rows.items())]


def attention_state(
    o: Any, per: Literal["token", "context"], window: int | None = None, of: str = ""
) -> dict[str, State]:
    return {
        "keys": State((o.kv_heads, o.dim_head), per, window, of=of),
        "values": State((o.kv_heads, o.value_dim_head), per, window, of=of),
    }


def attention_shapes(o: Any) -> dict[str, Shape]:
    values, own_keys = o.heads * o.value_dim_head, not getattr(o, "kv", False)
    out = (2 if o.on_attn else 1) * o.dim
    shapes: dict[str, Shape] = {"output.to_out.weight": (out, values)}
    if o.out_bias:
        shapes["output.to_out.bias"] = (out,)
    if o.tensor_product:
        shapes["output.to_relation.weight"] = (o.kv_heads * o.value_dim_head, o.dim_in)
    if o.head_scale:
        shapes["output.head_scale"] = (o.heads, 1, 1)
    if o.qk_norm_dim_scale:
        shapes["qk_norm.q_scale"] = (o.heads, 1, o.dim_head)
        shapes |= {"qk_norm.k_scale": (o.kv_heads, 1, o.dim_head)} if own_keys else {}
    if o.k_rmsnorm and own_keys:
        shapes["qk_norm.k.weight"] = (o.kv_heads, o.dim_head)
    if o.value_rmsnorm and own_keys:
        shapes["value_norm.weight"] = (o.kv_heads, o.value_dim_head)
    for part, heads in (("q", o.heads), *([("k", o.kv_heads)] if own_keys else [])):
        if which := o.qk_rmsnorm or o.qk_layernorm:
            size = {"head": (o.dim_head,), "each": (heads, o.dim_head), "all": (heads * o.dim_head,)}[which]
            shapes[f"qk_norm.{part}.weight"] = size
        if o.qk_layernorm == "head":
            shapes[f"qk_norm.{part}.bias"] = (o.dim_head,)
    if o.num_mem_kv and own_keys:
        shapes |= {
            "mem_kv.keys": (o.kv_heads, o.num_mem_kv, o.dim_head),
            "mem_kv.values": (o.kv_heads, o.num_mem_kv, o.value_dim_head),
        }
    return shapes | gate_shapes(o) | score_shapes(o)


# Options under which heads need each other → why.


# Options under which heads need each other → why.
_HEADS_TOGETHER = {
    "talking_heads": "heads exchange scores and weights",
    "on_attn": "the output's gate is of the sum over all heads",
    "output_gate": "the gate of a head reads what all heads give",
    "dropout": "attention weights are dropped for all heads at once",
}


def attention_split(o: Any, ranks: int, made: Callable[[int], Mapping[str, Cut]]) -> Split | str:
    """By heads; a head of keys and values is on every rank whose queries read it.

    Args:
        made: by how many ranks a head of keys and values is shared → the cuts of what makes queries, keys and values.
    """
    for name, why in _HEADS_TOGETHER.items():
        if getattr(o, name):
            return f"{name}: {why}"
    if o.heads % ranks:
        return uneven("heads", o.heads, ranks)
    if (shared := shared_by(o.kv_heads, ranks)) is None:
        return uneven("kv_heads", o.kv_heads, ranks)
    by_head, by_kv_head = Cut(), Cut(shared=(shared,))
    cuts = {
        "output.to_out.weight": Cut(axis=1),
        "output.to_relation.weight": by_kv_head,
        "output.head_scale": by_head,
        **gate_cuts(o),
        "qk_norm.q_scale": by_head,
        "qk_norm.k_scale": by_kv_head,
        "value_norm.weight": by_kv_head,
        "mem_kv.keys": by_kv_head,
        "mem_kv.values": by_kv_head,
        "sink.logits": by_head,
    }
    if o.k_rmsnorm or o.qk_rmsnorm in ("each", "all") or o.qk_layernorm == "each":
        cuts |= {"qk_norm.q.weight": by_head, "qk_norm.k.weight": by_kv_head}
    options = {"heads": o.heads // ranks, "kv_heads": o.kv_heads * shared // ranks, "dim_head": o.dim_head}
    sums = 0 if o.qk_rmsnorm != "all" else 1 if getattr(o, "kv", False) else 2
    return Split(options, {**cuts, **made(shared)}, once=("output.to_out.bias",), sums=sums)


def projection_cuts(name: str, o: Any, shared: int, queries: bool, keys: bool) -> dict[str, Cut]:
    """Of the parameters of `projection_shapes`."""
    layers = _projections(name, o, queries, keys)
    sharing = {"q": 1, "k": shared, "v": shared}
    cuts = {layer: Cut(0, (*parts.values(),), tuple(sharing[part] for part in parts)) for layer, (parts, _) in layers}
    return {f"{layer}.{what}": cut for layer, cut in cuts.items() for what in ("weight", "bias")}


def attention_flops(o: Any, batch: int, queries: int, sources: int, dim_source: int | None = None) -> int:
    """Projections, and the products of the attention itself; `dim_source`: features of a source, by default as read.

    The products are counted whole, causal or not, as torch.utils.flop_counter counts them.
    """
    keys = sources + o.num_mem_kv
    values = o.heads * o.value_dim_head
    on_tokens = o.heads * o.dim_head
    on_tokens += o.kv_heads * o.value_dim_head if o.tensor_product else 0
    scored = o.heads * (o.dim_head + (2 if o.l2_distance else 0))
    products = queries * keys * (scored + values + score_products(o))
    on_queries = queries * (o.dim_in * on_tokens + gate_products(o) + o.dim * (2 if o.on_attn else 1) * values)
    return 2 * batch * (on_queries + sources * (dim_source or o.dim_in) * kv_features(o) + products)


def qkv_step(o: Any, names: str, features: int, dim: int | None = None) -> str:
    """The step that makes queries, keys and values, or some of them."""
    with_k = o.qkv_bias and (o.k_bias or names == "q")
    but = " but k" if o.qkv_bias and not with_k else ""
    return f"{names} {dim or o.dim_in:,} → {features:,}{biased(o.qkv_bias)}{but}"


ATTENTION_WORDS: dict[str, Words] = {
    "dropout": "attention dropout {}",
    "sublayer_dropout": "dropout {} after attention",
    "qk_scale": {1: "unscaled scores", ...: "scores × {}"},
    "qkv_bias": "biases of q, k, v",
    "k_bias": "but no bias of k",
    "out_bias": "bias of attention's output",
    "shared_kv": "keys as values",
    "num_mem_kv": "{} memory keys and values",
    "qk_norm": "QK-norm: unit length",
    "qk_norm_groups": "QK-norm in {} groups",
    "qk_norm_scale": {1: "normed scores unscaled", ...: "normed scores × {}"},
    "qk_norm_dim_scale": "learned gains of QK-norm",
    "qk_rmsnorm": {
        "head": "QK-norm: RMSNorm",
        "each": "QK-norm: RMSNorm, gains by head",
        "all": "QK-norm: RMSNorm over all heads",
    },
    "k_rmsnorm": "RMSNorm of k",
    "value_rmsnorm": "RMSNorm of v",
    "qk_rmsnorm_eps": "QK-norm eps {}",
    "qk_layernorm": {"head": "QK-norm: LayerNorm", "each": "QK-norm: LayerNorm, gains by head"},
    "qk_layernorm_eps": "QK-norm eps {}",
    "talking_heads": "talking heads",
    "softcap": "attention softcap {}",
    "sparse_topk": "top-{} sparse attention",
    "sparse_topk_straight_through": "straight-through gradient of all scores",
    "sink": "attention sinks",
    "add_zero_kv": "zero key and value",
    "sigmoid": "sigmoid attention",
    "cog_signed": "Cog attention",
    "l2_distance": "L2-distance attention",
    "laser": "LASER attention",
    "laser_softcap": "LASER softcap {}",
    "head_scale": "learned gains of heads",
    "gate_values": "gated attention",
    "gate_values_headwise": "one gate a head",
    "gate_bias": "no bias of the gate",
    "gate_values_rank": "gate of rank {}",
    "output_gate": "gated output",
    "output_gate_headwise": "one output gate a head",
    "output_gate_rank": "output gate of rank {}",
    "low_rank_silu_gates": "no SiLU inside gates",
    "swiglu_values": "SiLU gates",
    "gate_value_heads": "gated heads",
    "on_attn": "attention on attention",
    "tensor_product": "values × a projection of the input",
    "zero_init_branch_output": "output layers at zero at first",
    "flash": "no fused attention kernel",
    "residual_attn": "RealFormer residual attention",
}


def attention_summary(o: Any) -> list[str]:
    heads = f"{counted(o.heads, 'head')} × {o.dim_head:,}"
    values = "" if o.value_dim_head == o.dim_head else f", values × {o.value_dim_head:,}"
    facts = [heads + values]
    facts += [counted(o.kv_heads, "kv head")] if o.kv_heads != o.heads else []
    past, future = getattr(o, "max_attend_past", None), getattr(o, "max_attend_future", None)
    causal = getattr(o, "causal", False)
    facts += [] if past is None else [f"window {past + 1:,}" if causal else f"{past:,} back"]
    return facts + ([] if future is None else [f"{future:,} ahead"])


def _unit_step(o: Any, names: str) -> str:
    groups = "" if o.qk_norm_groups == 1 else f" in {o.qk_norm_groups} groups"
    return f"unit {names}{groups}" + (" × learned gains" if o.qk_norm_dim_scale else "")


def attention_steps(o: Any, *projections: tuple[str, str]) -> list[tuple[str, str]]:
    heads = counted(o.heads, "head")
    softmax = ["sigmoid" if o.sigmoid else "softmax"] + (["causal"] if getattr(o, "causal", False) else [])
    if getattr(o, "max_attend_past", None) is not None:
        softmax.append(f"{o.max_attend_past} back")
    if getattr(o, "max_attend_future", None) is not None:
        softmax.append(f"{o.max_attend_future} ahead")
    softmax += score_words(o)
    own = "q" if getattr(o, "kv", False) else "q, k"
    steps = [
        *projections,
        (_unit_step(o, own), "") if o.qk_norm else None,
        (f"RMSNorm of {own}{by_gain(o.qk_rmsnorm)}", "") if o.qk_rmsnorm else None,
        ("RMSNorm of k", "") if o.k_rmsnorm and own != "q" else None,
        (f"LayerNorm of {own}{by_gain(o.qk_layernorm)}", "") if o.qk_layernorm else None,
        ("RMSNorm of v", "") if o.value_rmsnorm and own != "q" else None,
        (f"rotate {own}" if getattr(o, "kv_rank", None) is None else "rotate q and the shared key", "rotary"),
        ("k, v of another block", "kv") if own == "q" else None,
        (f"+ {o.num_mem_kv:,} learned k, v", "") if o.num_mem_kv and own != "q" else None,
        (
            f"{'-|q - k|²' if o.l2_distance else 'q·k'}, {heads} × {o.dim_head}"
            + (f", {counted(o.kv_heads, 'kv head')}" if o.kv_heads != o.heads else "")
            + (f", times {o.qk_norm_scale:g}" if o.qk_norm else "")
            + ("" if o.qk_scale is None else f", times {o.qk_scale:g}"),
            "bias scores",
        ),
        ("heads exchange scores", "") if o.talking_heads else None,
        (" · ".join(softmax), ""),
        ("heads exchange weights", "") if o.talking_heads else None,
        (f"dropout {o.dropout:g} of weights", "") if o.dropout else None,
        (
            f"· {f'exp v capped at {o.laser_softcap:g}' if o.laser else 'v'}, {heads} × {o.value_dim_head}",
            "",
        ),
        ("logarithm", "") if o.laser else None,
        ("+ itself × a linear layer of the input", "") if o.tensor_product else None,
        ("× a learned gain by head", "") if o.head_scale else None,
        *((step, "") for step in gate_steps(o)),
        (f"out {o.heads * o.value_dim_head:,} → {(2 if o.on_attn else 1) * o.dim:,}{biased(o.out_bias)}", ""),
        ("gated: attention on attention", "") if o.on_attn else None,
        *dropout_step(o),
    ]
    return [step for step in steps if step is not None]
