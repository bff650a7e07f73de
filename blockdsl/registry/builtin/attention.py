"""Self-attention `a`: its options, what clashes, and what it costs; most of it is cross-attention's too."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from ..kinds import Kind, Shape, Sizes
from ..norms import NORM_UNIT_OFFSET
from ..options import Option, Value
from ..split import Cut, Split, shared_by, uneven
from ..state import State
from .dropout import dropout_step, sublayer_dropout
from .latent import (
    LATENT_OPTIONS,
    latent_check,
    latent_cuts,
    latent_products,
    latent_saved,
    latent_shapes,
    latent_state,
    latent_steps,
    shared_key_dim,
)


def _switch(
    name: str, doc: str, setting: str | None = None, area: str = "", default: bool = False, scores: str = ""
) -> Option:
    return Option(name, bool, default, doc, setting=setting or f"attn_{name}", area=area, scores=scores)


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
        _switch("one_kv_head", "one head of keys and values, shared by all query heads (arXiv:1911.02150)"),
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
        _switch("qkv_bias", "queries, keys and values with a bias (GPT-2, Qwen2, arXiv:2407.10671)"),
        _switch("k_bias", "keys have a bias too where qkv_bias is on (Whisper: false, arXiv:2212.04356)", default=True),
        _switch("out_bias", "the last linear layer with a bias (GPT-2)"),
        _switch("shared_kv", "keys serve as values"),
        Option(
            "num_mem_kv",
            int,
            0,
            "learned keys and values that all tokens see (arXiv:1907.01470)",
            setting="attn_num_mem_kv",
            least=0,
        ),
        _switch("qk_norm", "queries and keys of unit length (arXiv:2010.04245)"),
        Option("qk_norm_groups", int, 1, "groups of features that are normed", setting="attn_qk_norm_groups", least=1),
        Option(
            "qk_norm_scale",
            float,
            10,
            "what scores of normed queries and keys are multiplied by",
            setting="attn_qk_norm_scale",
            least=0,
        ),
        _switch("qk_norm_dim_scale", "a learned gain for each normed feature (arXiv:2302.05442)"),
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
        _switch("k_rmsnorm", "RMSNorm of keys alone, each head's features with a gain of their own"),
        _switch(
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
        _switch(
            "talking_heads",
            "heads exchange scores and weights (arXiv:2003.02436)",
            scores="xt_blocks.kernels.scores.talking_heads:TalkingHeads",
        ),
        Option(
            "softcap",
            float,
            None,
            "scores bounded by c, as c·tanh(score / c) (Gemma 2, arXiv:2408.00118); none: unbounded",
            setting="attn_softcap",
            above=0,
            optional=True,
            scores="xt_blocks.kernels.scores.softcap:softcap",
        ),
        Option(
            "sparse_topk",
            int,
            None,
            "only so many of each query's largest scores count (arXiv:1912.11637); none: all",
            setting="attn_sparse_topk",
            least=1,
            optional=True,
            scores="xt_blocks.kernels.scores.sparse_topk:sparse_topk",
        ),
        _switch(
            "sink",
            "a learned logit of each head takes a share of its softmax (gpt-oss, arXiv:2508.10925)",
            scores="xt_blocks.kernels.scores.sink:Sink",
        ),
        _switch(
            "add_zero_kv",
            "a key and a value of zeros, which all queries see: a head can attend to nothing "
            "(the zero sink of arXiv:2309.17453)",
            scores="xt_blocks.kernels.scores.zero_kv:zero_kv",
        ),
        _switch(
            "sigmoid",
            "each weight is the sigmoid of its score, in place of the softmax (arXiv:2409.04431)",
            scores="xt_blocks.kernels.scores.sigmoid:sigmoid",
        ),
        _switch(
            "l2_distance", "scores fall with the squared distance of query and key, in place of q·k (arXiv:2006.04710)"
        ),
        _switch("laser", "attention to the exponentials of values, and the logarithm of the sum (arXiv:2411.03493)"),
        Option(
            "laser_softcap",
            float,
            15.0,
            "values of laser bounded by c, as c·tanh(value / c)",
            setting="attn_laser_softcap",
            above=0,
        ),
        _switch("head_scale", "a learned gain for each head (arXiv:2110.09456)"),
        _switch(
            "gate_values",
            "gate the weighted sum of values with a sigmoid of the input (doi:10.1038/s41586-021-03819-2)",
        ),
        _switch("gate_values_headwise", "gate_values has one gate for each head (arXiv:2505.06708)"),
        _switch("gate_bias", "the gate of gate_values has a bias (Qwen3-Next: false)", default=True),
        _switch("on_attn", "attention on attention: a gated output (arXiv:1908.06954)"),
        _switch("tensor_product", "values times a projection of the input, added (arXiv:2208.06061)"),
        _switch(
            "zero_init_branch_output",
            "the last linear layer starts at zero",
            "zero_init_branch_output",
            area="norms and residuals",
        ),
        _switch(
            "flash",
            "use the fused kernel unless an option needs the scores themselves (arXiv:2205.14135)",
            default=True,
        ),
        _switch(
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
    dim_head = _dim_head(o)
    if o.shared_kv and o.value_dim_head not in (None, dim_head):
        return f"shared_kv gives values the keys' {dim_head} features, but value_dim_head={o.value_dim_head} is set"
    if not o.k_bias and (o.shared_kv or not o.qkv_bias):
        return "k_bias is false, but " + ("shared_kv makes values of keys" if o.shared_kv else "it needs qkv_bias")
    if not o.gate_bias and not o.gate_values:
        return "gate_bias is false, but it needs gate_values"
    if o.gate_values_headwise and not o.gate_values:
        return "gate_values_headwise is set, but it needs gate_values"
    if len(weigh := [name for name in ("sink", "add_zero_kv", "sigmoid") if getattr(o, name)]) > 1:
        return f"{' and '.join(weigh)} are set; one of them takes the softmax's place"
    if o.laser_softcap != 15 and not o.laser:
        return "laser_softcap is set, but it needs laser"
    if o.laser and o.talking_heads:
        return "laser and talking_heads are set, but weights that heads exchange may be negative, without a logarithm"
    if o.qk_scale is not None and o.qk_norm:
        return f"qk_scale={o.qk_scale} is set, but qk_norm multiplies its scores by qk_norm_scale"
    if o.qk_norm and dim_head % o.qk_norm_groups:
        return f"qk_norm_groups={o.qk_norm_groups} does not divide a head's {dim_head} features"
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
    return None


# Options that forget_gate has no place beside → why.
_NO_GATES = {
    "kv_rank": "a cache keeps latents, which all heads share",
    "kv": "the keys of another block have no gates",
    "l2_distance": "a distance would count the gates' features",
    "softcap": "gates would be capped too",
    "talking_heads": "heads would exchange their gates",
    "residual_attn": "a later block would forget twice",
}


def _self_attention_check(o: Any) -> str | None:
    if o.causal and o.max_attend_future is not None:
        return f"max_attend_future={o.max_attend_future} is set, but a causal block attends to no later token"
    if o.dim_head is None and o.dim % o.heads:
        return attention_check(o)
    if o.forget_gate and (clash := next((name for name in _NO_GATES if getattr(o, name)), None)):
        return f"forget_gate is set beside {clash}, but {_NO_GATES[clash]}"
    if o.forget_gate and not o.causal:
        return "forget_gate is set, but it needs causal: a token forgets those before it"
    if o.kv and o.values:
        return "kv and values are set, but kv takes the values of its label too"
    if o.value_mix != "half" and not o.values:
        return f"value_mix={o.value_mix} is set, but it needs values"
    return attention_check(o) or latent_check(o, _dim_head(o))


def _self_attention_derived(o: Any) -> dict[str, Value]:
    return attention_derived(o) | {
        "shared_key_dim": None if o.kv_rank is None else shared_key_dim(o, _dim_head(o)),
    }


def _self_attention_shapes(o: Any) -> dict[str, Shape]:
    made = projection_shapes("to_qkv", o, queries=True, keys=not o.kv) if o.kv_rank is None else latent_shapes(o)
    if o.forget_gate:
        made |= {"forget_gate.weight": (o.heads, o.dim), "forget_gate.bias": (o.heads,)}
    if o.value_mix == "learned":
        made |= {"to_value_mix.weight": (o.kv_heads, o.dim), "to_value_mix.bias": (o.kv_heads,)}
    return made | attention_shapes(o)


def _self_attention_split(o: Any, ranks: int) -> Split | str:
    def made(shared: int) -> dict[str, Cut]:
        cuts = latent_cuts(o, ranks) if o.kv_rank else projection_cuts("to_qkv", o, shared, queries=True, keys=not o.kv)
        cuts |= dict.fromkeys(("forget_gate.weight", "forget_gate.bias"), Cut())
        return cuts | dict.fromkeys(("to_value_mix.weight", "to_value_mix.bias"), Cut(shared=(shared,)))

    return attention_split(o, ranks, made)


def _self_attention_flops(o: Any, batch: int, seq: int) -> int:
    flops = attention_flops(o, batch, seq, seq)
    if o.forget_gate:  # further features: one of the query, and one for each query head that reads a key
        flops += 2 * batch * seq * o.heads * (o.dim + (seq + o.num_mem_kv) * (1 + o.heads // o.kv_heads))
    if o.value_mix == "learned":
        flops += 2 * batch * seq * o.dim * o.kv_heads
    if o.kv_rank is None:
        return flops
    full = o.dim * (o.heads * o.dim_head + kv_features(o))
    return flops + 2 * batch * seq * (latent_products(o) - full)


def _self_attention_saved(o: Any, sizes: Sizes, inputs: Collection[str]) -> float:
    tokens = sizes.batch * sizes.seq
    scores = scores_saved(o, sizes.batch, sizes.seq, sizes.seq)
    return tokens * o.dim + attention_saved(o, tokens, tokens, inputs) + scores


def _self_attention_steps(o: Any) -> list[tuple[str, str]]:
    if o.kv_rank is None:
        made = qkv_step(o, "q" if o.kv else "q, k, v", o.heads * o.dim_head + kv_features(o))
        mix = {"half": "half of v", "learned": f"a share of v for each of {o.kv_heads} heads"}[o.value_mix]
        return attention_steps(o, (made, ""), *([(mix, "values")] if o.values else []))
    return attention_steps(o, *latent_steps(o))


def _self_attention_state(o: Any) -> dict[str, State]:
    if o.kv_rank is not None:
        return latent_state(o)
    gates = {"gates": State((o.heads,), "token", o.max_attend_past, "float32")} if o.forget_gate else {}
    return attention_state(o, "token", o.max_attend_past, "kv" if o.kv else "") | gates


def _given_sizes(o: Any) -> dict[str, dict[str, Value]] | str:
    if o.kv_rank is not None:
        return "its keys and values are made of latents"
    values = value_sizes(o, "this sequence's")
    keys: dict[str, Value] = {"features of a key": o.dim_head, "memory key-values": o.num_mem_kv}
    return {"kv": values | keys, "values": values}


def value_sizes(o: Any, whose: str) -> dict[str, Value]:
    """Of values that a block gives, by token of one of two sequences."""
    return {"tokens": whose, "heads of keys and values": o.kv_heads, "features of a value": o.value_dim_head}


def _dim_head(o: Any) -> int:
    return int(o.dim // o.heads if o.dim_head is None else o.dim_head)


def attention_derived(o: Any) -> dict[str, Value]:
    dim_head = _dim_head(o)
    return {
        "dim_head": dim_head,
        "kv_heads": 1 if o.one_kv_head else o.heads if o.kv_heads is None else o.kv_heads,
        "value_dim_head": dim_head if o.value_dim_head is None else o.value_dim_head,
    }


def kv_features(o: Any) -> int:
    """Features that keys and values are projected to; none where they are those of another block."""
    if getattr(o, "kv", False):
        return 0
    return o.kv_heads * (o.dim_head + (0 if o.shared_kv else o.value_dim_head))


def projection_shapes(name: str, o: Any, queries: bool, keys: bool, dim: int | None = None) -> dict[str, Shape]:
    """Parameters of a linear layer that makes some of queries, keys and values; parts where keys have no bias.

    `dim` is of what it reads, the stream by default.
    """
    shapes: dict[str, Shape] = {}
    for layer, (parts, bias) in _projections(name, o, queries, keys):
        rows = sum(parts.values())
        shapes[f"{layer}.weight"] = (rows, dim or o.dim)
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
        shapes["output.to_relation.weight"] = (o.kv_heads * o.value_dim_head, o.dim)
    if o.head_scale:
        shapes["output.head_scale"] = (o.heads, 1, 1)
    if gates := gate_features(o):
        shapes["output.to_gate.weight"] = (gates, o.dim)
        shapes |= {"output.to_gate.bias": (gates,)} if o.gate_bias else {}
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
    if o.talking_heads:
        shapes |= {f"talking_heads.{place}.weight": (o.heads, o.heads) for place in ("before", "after")}
    if o.sink:
        shapes["sink.logits"] = (o.heads,)
    return shapes


# Options under which heads need each other → why.
_HEADS_TOGETHER = {
    "talking_heads": "heads exchange scores and weights",
    "on_attn": "the output's gate is of the sum over all heads",
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
    if o.qk_rmsnorm == "all":
        return "qk_rmsnorm=all: the features of all heads are normed at once"
    if o.heads % ranks:
        return uneven("heads", o.heads, ranks)
    if (shared := shared_by(o.kv_heads, ranks)) is None:
        return uneven("kv_heads", o.kv_heads, ranks)
    by_head, by_kv_head = Cut(), Cut(shared=(shared,))
    cuts = {
        "output.to_out.weight": Cut(axis=1),
        "output.to_relation.weight": by_kv_head,
        "output.head_scale": by_head,
        "output.to_gate.weight": by_head,
        "output.to_gate.bias": by_head,
        "qk_norm.q_scale": by_head,
        "qk_norm.k_scale": by_kv_head,
        "value_norm.weight": by_kv_head,
        "mem_kv.keys": by_kv_head,
        "mem_kv.values": by_kv_head,
        "sink.logits": by_head,
    }
    if o.k_rmsnorm or "each" in (o.qk_rmsnorm, o.qk_layernorm):
        cuts |= {"qk_norm.q.weight": by_head, "qk_norm.k.weight": by_kv_head}
    options = {"heads": o.heads // ranks, "kv_heads": o.kv_heads * shared // ranks, "dim_head": o.dim_head}
    return Split(options, {**cuts, **made(shared)}, once=("output.to_out.bias",))


def projection_cuts(name: str, o: Any, shared: int, queries: bool, keys: bool) -> dict[str, Cut]:
    """Of the parameters of `projection_shapes`."""
    layers = _projections(name, o, queries, keys)
    sharing = {"q": 1, "k": shared, "v": shared}
    cuts = {layer: Cut(0, (*parts.values(),), tuple(sharing[part] for part in parts)) for layer, (parts, _) in layers}
    return {f"{layer}.{what}": cut for layer, cut in cuts.items() for what in ("weight", "bias")}


def gate_features(o: Any) -> int:
    """Features of the gate of values; 0: there is none."""
    return (o.heads if o.gate_values_headwise else o.heads * o.value_dim_head) if o.gate_values else 0


def attention_flops(o: Any, batch: int, queries: int, sources: int, dim_source: int | None = None) -> int:
    """Projections, and the products of the attention itself; `dim_source`: features of a source, o.dim by default.

    The products are counted whole, causal or not, as torch.utils.flop_counter counts them.
    """
    keys = sources + o.num_mem_kv
    values = o.heads * o.value_dim_head
    on_tokens = o.heads * o.dim_head + (2 if o.on_attn else 1) * values
    on_tokens += o.kv_heads * o.value_dim_head if o.tensor_product else 0
    on_tokens += gate_features(o)
    scored = o.heads * (o.dim_head + (2 if o.l2_distance else 0))
    products = queries * keys * (scored + values + (2 * o.heads**2 if o.talking_heads else 0))
    return 2 * batch * (queries * o.dim * on_tokens + sources * (dim_source or o.dim) * kv_features(o) + products)


def attention_saved(o: Any, queries: float, keys: float, inputs: Collection[str], joint: bool = True) -> float:
    """Numbers saved of queries, keys, values and their weighted sum, for so many tokens of each, without the scores.

    What is computed of the projections, as rotated queries, stands beside them or, where nothing else is read of them,
    in their place; keys and values are repeated for the heads that share them.

    Args:
        joint: one linear layer makes queries, keys and values.
    """
    latent, normed = getattr(o, "kv_rank", None) is not None, bool(o.qk_norm or o.qk_rmsnorm or o.qk_layernorm)
    changed, explicit = normed or "rotary" in inputs, not o.flash
    repeated = o.heads != o.kv_heads and not explicit
    new_q, new_k, new_v = (each or explicit for each in (changed or latent, changed or repeated, repeated))
    out = queries * o.heads * (o.value_dim_head * (2 if new_q and not explicit else 1) + (not explicit))
    out += queries * 2 * gate_features(o) + (queries * o.heads + keys * o.kv_heads) * normed
    if latent:
        return queries * latent_saved(o) + out
    heads = o.heads if repeated else o.kv_heads
    own_keys = not getattr(o, "kv", False)
    made = queries * o.heads * o.dim_head * new_q
    made += keys * heads * (o.dim_head * new_k + o.value_dim_head * new_v) * (own_keys or repeated)
    kept_q, kept_kv = normed or not new_q, own_keys and (normed or not (new_k and new_v))
    if joint:
        kept_q = kept_kv = kept_q or kept_kv
    return out + made + queries * o.heads * o.dim_head * kept_q + keys * kv_features(o) * kept_kv


def scores_saved(o: Any, batch: int, queries: int, keys: int) -> float:
    """Of scores, which kernels that hold them save: the weights, and what modifiers read."""
    modified = (o.softcap is not None) + 2 * (o.dropout > 0) + 2 * bool(o.talking_heads)
    return batch * o.heads * queries * (keys + o.num_mem_kv) * (1 + modified) if o.flash is False else 0


def _biased(bias: bool) -> str:
    return " + bias" if bias else ""


def qkv_step(o: Any, names: str, features: int, dim: int | None = None) -> str:
    """The step that makes queries, keys and values, or some of them."""
    biased = o.qkv_bias and (o.k_bias or names == "q")
    but = " but k" if o.qkv_bias and not biased else ""
    return f"{names} {dim or o.dim:,} → {features:,}{_biased(o.qkv_bias)}{but}"


def attention_steps(o: Any, *projections: tuple[str, str]) -> list[tuple[str, str]]:
    heads = f"{o.heads} head{'' if o.heads == 1 else 's'}"
    softmax = ["sigmoid" if o.sigmoid else "softmax"] + (["causal"] if getattr(o, "causal", False) else [])
    if getattr(o, "max_attend_past", None) is not None:
        softmax.append(f"{o.max_attend_past} back")
    if getattr(o, "max_attend_future", None) is not None:
        softmax.append(f"{o.max_attend_future} ahead")
    softmax += [f"top {o.sparse_topk}"] if o.sparse_topk is not None else []
    softmax += ["sink"] if o.sink else []
    softmax += ["zero key"] if o.add_zero_kv else []
    softmax += ["forget gate"] if getattr(o, "forget_gate", False) else []
    softmax += [f"softcap {o.softcap:g}"] if o.softcap is not None else []
    own = "q" if getattr(o, "kv", False) else "q, k"
    steps = [
        *projections,
        (f"unit {own}", "") if o.qk_norm else None,
        (f"RMSNorm of {own}{', all heads' if o.qk_rmsnorm == 'all' else ''}", "") if o.qk_rmsnorm else None,
        ("RMSNorm of k", "") if o.k_rmsnorm and own != "q" else None,
        (f"LayerNorm of {own}", "") if o.qk_layernorm else None,
        ("RMSNorm of v", "") if o.value_rmsnorm and own != "q" else None,
        (f"rotate {own}" if getattr(o, "kv_rank", None) is None else "rotate q and the shared key", "rotary"),
        ("k, v of another block", "kv") if own == "q" else None,
        (
            f"{'-|q - k|²' if o.l2_distance else 'q·k'}, {heads} × {o.dim_head}"
            + ("" if o.qk_scale is None else f", times {o.qk_scale:g}"),
            "bias scores",
        ),
        (" · ".join(softmax), ""),
        (f"· {'exp v' if o.laser else 'v'}, {heads} × {o.value_dim_head}", ""),
        ("logarithm", "") if o.laser else None,
        (f"gate{' heads' if o.gate_values_headwise else ''} by the input", "") if o.gate_values else None,
        (f"out {o.heads * o.value_dim_head:,} → {(2 if o.on_attn else 1) * o.dim:,}{_biased(o.out_bias)}", ""),
        ("gated: attention on attention", "") if o.on_attn else None,
        *dropout_step(o),
    ]
    return [step for step in steps if step is not None]


SELF_ATTENTION = Kind(
    name="a",
    title="self-attention",
    prefix="attn",
    shown=("kv_rank",),
    options=attention_options(
        "residual_attn",
        "previous self-attention",
        Option("causal", bool, False, "each token attends to itself and those before it", setting="causal"),
        Option(
            "max_attend_past",
            int,
            None,
            "how many tokens back a token attends; none: all",
            setting="attn_max_attend_past",
            least=0,
            optional=True,
        ),
        Option(
            "max_attend_future",
            int,
            None,
            "how many tokens ahead a token attends in a block that is not causal (ModernBERT, arXiv:2412.13663); "
            "none: all",
            setting="attn_max_attend_future",
            least=0,
            optional=True,
        ),
        _switch(
            "forget_gate",
            "scores fall by a learned gate of each token in between: forgetting attention (FoX, arXiv:2503.02130)",
        ),
        *LATENT_OPTIONS,
        Option(
            "kv",
            bool,
            False,
            "a label after a self-attention, whose keys and values this block attends to; it has none of its own "
            "(YOCO, arXiv:2405.05254)",
            reads="kv",
        ),
        Option(
            "values",
            bool,
            False,
            "a label after a self-attention: a mean of its values and this block's is attended to (ResFormer, "
            "arXiv:2410.17897)",
            reads="values",
        ),
        Option(
            "value_mix",
            str,
            "half",
            "shares of that mean: half of each, or learned, as a linear layer makes them of each token by head",
            choices=("half", "learned"),
        ),
    ),
    inputs=("attend", "rotary", "bias", "scores", "memory", "cache"),
    shapes=_self_attention_shapes,
    flops=lambda o, sizes: _self_attention_flops(o, sizes.batch, sizes.seq),
    saved=_self_attention_saved,
    state=_self_attention_state,
    gives=("scores", "kv", "values"),
    given_sizes=_given_sizes,
    module="xt_blocks.blocks.attention:Attention",
    check=_self_attention_check,
    derive=_self_attention_derived,
    split=_self_attention_split,
    steps=_self_attention_steps,
    also=("attn", "attention", "self_attention", "selfattention", "sa", "mha"),
    area="attention",
    builtin=True,
)
