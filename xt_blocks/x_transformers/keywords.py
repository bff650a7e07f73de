"""Keywords of x-transformers' releases as ours: renamed, dropped with a warning, or refused.

1.x ignores a keyword of a stack that it does not know, which is why clients' code is full of keywords without effect.
They are taken here with a warning that names the keyword that would act. What 2.x computes and we do not is refused,
unless it is at its default.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from blockdsl.errors import did_you_mean
from blockdsl.language.ordering import with_option, words_of
from blockdsl.registry.kinds import kinds as all_kinds
from blockdsl.registry.options import spell
from blockdsl.registry.settings import table

from ..models.layers import ORDERING, stack_keywords

# Keywords of 2.x -----------------------------------------------------------------------------------------------------

# name → its default in 2.x, with which it changes nothing here
_NOT_HERE: dict[str, Any] = dict.fromkeys(
    (
        "use_dynamic_tanh",
        "use_derf",
        "polar_pos_emb",
        "polar_bias_uniform_init",
        "attn_aggregated_residuals",
        "mv_split_residual",
        "gated_multi_residual",
        "integrate_layers",
        "qkv_receive_diff_residuals",
        "attn_pre_scale_post_talking_heads",
        "attn_gumbel_softmax",
        "attn_selective",
        "attn_hybrid_learned_mix",
        "attn_data_dependent_alibi_per_row",
        "attn_use_rel_proj_pos_bias",
        "attn_use_cope",
        "attn_cope_soft_onehot_pos",
        "attn_cope_talking_heads",
        "attn_learned_value_residual_mix",
        "attn_orthog_projected_values",
        "attn_orthog_projected_values_per_head",
        "attn_qkv_receive_diff_residuals",
        "attn_use_latent_q",
        "attn_use_latent_kv",
        "attn_inverted_attention",
        "attn_flash_pack_seq",
        "ff_solu",
    ),
    False,
) | {
    "layer_integrate_use_softmax": True,
    "attn_gumbel_softmax_hard": True,
    "dynamic_tanh_init_alpha": 1.0,
    "attn_gumbel_softmax_temp": 1.0,
    "attn_data_dependent_alibi_per_row_dim_head": 8,
    "attn_rel_proj_num_distance_basis": 16,
    "attn_rel_proj_max_dist": 1024,
    "attn_cope_max_pos": 16,
    "rotate_num_heads": None,
    "attn_rotate_num_heads": None,
    "attn_dim_context": None,
    "attn_dim_out": None,
    "attn_output_proj_depth": None,
    "attn_custom_attn_fn": None,
    "attn_hybrid_module": None,
    "attn_hybrid_mask_kwarg": None,
    "attn_hybrid_fold_axial_dim": None,
    "attn_project_out": None,
    "attn_dim_latent_q": None,
    "attn_dim_latent_kv": None,
    "attn_latent_rope_subheads": None,
    "ff_dim_out": None,
    "ff_custom_activation": None,
    "ff_output_proj_depth": None,
    "ff_softclamp_value": None,
    "ff_glu_softclamp": False,
    "ff_glu_gate_softclamp_value": 4.0,
    "ff_glu_up_softclamp_value": 25.0,
    "attn_aggregated_residual_kwargs": {},
    "rel_pos_kwargs": {},
    "residual_fn_kwargs": {},
    "attn_data_dependent_alibi_kwargs": {},
    "cross_attn_tokens_dropout": 0.0,
}

_ADAPTIVE = ("use_adaptive_layernorm", "use_adaptive_rmsnorm", "use_adaptive_layerscale")

# What comes near to one of them.
_NEAR = {
    "integrate_layers": "queries, keys and values read one view here, as in pattern='(^h <h(all, route) "
    "a(scale_residual_constant=0) <h ^h <h(all, route) f(scale_residual_constant=0) <h)*6'",
    "layer_integrate_use_softmax": "<h(all, route) has a softmax",
    "qkv_receive_diff_residuals": "queries, keys and values read one mix of the streams",
    "attn_pre_scale_post_talking_heads": "attn_talking_heads mixes scores and weights, each by a layer of its own",
    "attn_gumbel_softmax": "it draws in evaluation too; attn_hard takes the largest score, with the softmax's gradient",
    "attn_use_latent_kv": "attn_kv_rank makes keys and values of latents, with norms and a rotated key of their own",
    "attn_use_latent_q": "attn_q_rank makes queries of latents, beside attn_kv_rank",
    "attn_selective": "attn_forget_gate lowers the scores of earlier tokens by learned gates",
    "attn_use_cope": "attn_forget_gate biases scores by what stands in between, too",
    "attn_dim_out": "a block gives as many features as the stream has; put a linear layer after a lone Attention",
    "ff_dim_out": "a block gives as many features as the stream has; put a linear layer after a lone FeedForward",
    "attn_custom_attn_fn": "a graph has no functions; a Modifier in a kind of your own changes scores",
    "ff_custom_activation": "a graph has no functions; ff_activation names one",
    "attn_learned_value_residual_mix": "learned_value_residual_mix of the stack, with add_value_residual, sets it",
    "gated_multi_residual": "num_residual_streams mixes streams by matrices of each token, without gates of features",
}

# Of these, any value gives the same numbers here.
_NO_DIFFERENCE = ("verbose", "attn_onnxable", "attn_attend_sdp_kwargs")

# Defaults of those that belong together, so that the names of parts are refused only with what they are parts of.
_WRAPPER_NOT_HERE: dict[str, Any] = {
    "embed_num_tokens": {},
    "memory_tokens_interspersed_every": None,
    "num_output_heads": 1,
    "recycling": False,
    "train_max_recycle_steps": 4,
    "looped": False,
    "max_looped_steps": 4,
    "attn_z_loss_weight": 1e-4,
    "attn_pool_depth": 1,
    "dim_pooled_tokens": None,
    "token_emb": None,
    "mixture_of_softmax": False,
    "mixture_of_softmax_k": 4,
    "sigsoftmax_logits": False,
    "ff_deep_embed": False,
    "to_logits": None,
    "add_continuous_pred_head": False,
    "input_not_include_cache": False,
    "probabilistic": False,
}


def without_defaults(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of a model around a stack in our names, without those of 2.x that are not here and at their default."""
    out = {
        name: value
        for name, value in keywords.items()
        if name not in _WRAPPER_NOT_HERE or value != _WRAPPER_NOT_HERE[name]
    }
    out |= _pool(out)
    if out.get("logits_dim") != 1:
        out.pop("squeeze_out_last_dim", None)  # without effect
    scale = out.pop("tie_embedding_scale", None)
    return out | {"logits_scale": scale} if scale is not None and out.get("tie_embedding") else out


def _pool(left: dict[str, Any]) -> dict[str, Any]:
    """Pop the words of 2.x for what makes one vector of a sequence."""
    ways = {"average_pool_embed": "mean", "use_cls_token": "cls", "attn_pool": "attention"}
    asked = [pool for name, pool in ways.items() if left.pop(name, False)]
    if len(asked) > 1:
        raise TypeError("average_pool_embed, use_cls_token and attn_pool make the same vector: give one of them")
    for name, pool in (("num_cls_tokens", "cls"), ("num_pooled_tokens", "attention")):
        if pool not in asked and left.get("pool") != pool:
            left.pop(name, None)
    return {"pool": asked[0]} if asked else {}


def without_unset(keywords: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Keywords without those of ours that are None, which there means that nothing is given. Others stay to be told."""
    return {name: value for name, value in keywords.items() if value is not None or name not in known}


# Stacks --------------------------------------------------------------------------------------------------------------


def stack_keywords_of(called: str, keywords: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The keywords of a stack, in our names.

    Args:
        called: the class, for warnings.
        prefix: "enc_" or "dec_", which the caller wrote before each name.

    Raises:
        TypeError: a keyword of 2.x that is not here, or two that clash.
    """
    left = {**keywords}
    width = left.pop("attn_dim_context", None)  # of cross-attention, which alone can have another one
    _drop_defaults(called, left, prefix)
    out = _renamed(called, left) | ({} if width is None else {"cross_attn_dim_context": width})
    out |= _ordered(called, left)
    known = {*stack_keywords(), "disable_abs_pos_emb"}
    for name in [*left]:
        if name not in known and not name.startswith(("attn_", "ff_", "cross_attn_")):
            left.pop(name)
            warnings.warn(ignored(called, name, known, prefix), stacklevel=3)
    return left | out


def ignored(called: str, name: str, known: Iterable[str], prefix: str = "") -> str:
    """What to say of a keyword that 1.x ignores."""
    known = [*known]
    act = [f"{prefix}{part}{name}" for part in ("attn_", "ff_") if part + name in known]
    nearest = {"flash_attn": "attn_flash", "flash_attention": "attn_flash", "num_heads": "heads", "n_heads": "heads"}
    if name in nearest:
        act = [prefix + nearest[name]]
    if name in table() and name not in known:
        hint = "it is an argument of the model around the stack"
    elif act:
        hint = f"{' and '.join(act)} would act"
    else:
        hint = did_you_mean(name, known) or ""
    return f"{called}({prefix}{name}=...) has no effect, as in x-transformers 1.x" + (f": {hint}" if hint else "")


def _drop_defaults(called: str, left: dict[str, Any], prefix: str) -> None:
    for name in [*left]:
        if name in _NO_DIFFERENCE:
            left.pop(name)
        elif name in _NOT_HERE and name not in stack_keywords():
            if left[name] != _NOT_HERE[name]:
                near = f"; {_NEAR[name]}" if name in _NEAR else ""
                raise TypeError(
                    f"{called}({prefix}{name}={left[name]!r}): this option of x-transformers 2.x is not here{near}"
                )
            left.pop(name)


def _renamed(called: str, left: dict[str, Any]) -> dict[str, Any]:
    """Pop the spellings of 2.x whose meaning we have."""
    out: dict[str, Any] = {}
    talks = [bool(left.pop(f"attn_{part}_talking_heads", False)) for part in ("pre", "post")]
    if any(talks):
        if not all(talks):
            raise TypeError(f"{called}(): talking heads mix before and after the softmax here: set attn_talking_heads")
        out["attn_talking_heads"] = True
    cap = left.pop("attn_logit_softclamp_value", 50.0)
    if left.pop("attn_softclamp_logits", False):
        out["attn_softcap"] = cap
        biased = [n for n in ("alibi_pos_bias", "rel_pos_bias", "dynamic_pos_bias") if left.get(n)]
        if biased:
            warnings.warn(
                f"{called}(): the softclamp leaves {biased[0]} as it is; x-transformers caps it too", stacklevel=4
            )
    if left.pop("attn_data_dependent_alibi", False):
        out["attn_forget_gate"] = True
    bound = left.pop("softclamp_output_value", 30.0)
    if left.pop("softclamp_output", False):
        out["output_softcap"] = bound
    bound = left.pop("attn_laser_softclamp_value", 15.0)
    if left.get("attn_laser"):
        out["attn_laser_softcap"] = bound
    if left.pop("attn_hard", False):  # the largest score alone, with the gradient of the softmax of all
        out |= {"attn_sparse_topk": 1, "attn_sparse_topk_straight_through": True}
    if not left.get("attn_gate_values_rank") and not left.get("attn_output_gate_rank"):
        left.pop("attn_low_rank_silu_gates", None)
    if left.pop("attn_head_learned_sink", False):
        out["attn_sink"] = True
    if (factor := left.pop("rotary_interpolation_factor", 1)) != 1:
        out |= {"rotary_scaling": "linear", "rotary_factor": factor}
    if (rescaled := left.pop("rotary_base_rescale_factor", 1)) != 1:
        rotated = left.get("rotary_emb_dim") or left.get("attn_dim_head", 64) // 2
        out["rotary_theta"] = 10_000 * rescaled ** (rotated / (rotated - 2))
    if isinstance(left.get("attn_qk_rmsnorm"), bool) and left.pop("attn_qk_rmsnorm"):
        out["attn_qk_rmsnorm"] = "each"  # a gain of each head's own
    out |= _scaled(called, left)
    if "hyper_conn_mix" not in left:
        left.pop("hyper_conn_sinkhorn_iters", None)  # whatever they are, it sums the streams
        if (left.get("num_residual_streams") or 1) > 1:
            out["hyper_conn_mix"] = "sum"
    if not left.get("reinject_input"):
        left.pop("learned_reinject_input_gate", None)
    if not left.get("add_value_residual"):
        left.pop("learned_value_residual_mix", None)
    if "pre_norm_has_final_norm" in left and not left.pop("pre_norm_has_final_norm"):
        out["final_norm"] = False
    return out


def _scaled(called: str, left: dict[str, Any]) -> dict[str, Any]:
    """Pop what 2.x says of the gain of a branch and of the condition, in other words or without effect."""
    adaptive = [name for name in _ADAPTIVE if left.get(name)]
    for name, read in (("dim_condition", adaptive), ("adaptive_condition_mlp", adaptive)):
        if not read:
            left.pop(name, None)
    if not left.get("adaptive_condition_mlp"):
        left.pop("adaptive_condition_mlp_expansion", None)
    if left.pop("orthog_residual", False):
        told = "it projects all tokens of a row at once there, so that a token sees later ones; here, each by itself"
        raise TypeError(f"{called}(orthog_residual=True): {told}, as xt_blocks.{called} has it")
    factor = left.pop("depth_scale_residual", False)
    if factor is True:
        raise TypeError(f"{called}(depth_scale_residual=True): initial weights by depth are not here; a number is")
    if factor is not False:
        left["branch_scale"] = factor
    start, scaled = left.pop("layerscale_init_value", 0.0), left.pop("use_layerscale", False)
    if left.get("sandwich_norm") and (scaled or "use_adaptive_layerscale" in adaptive):
        raise TypeError(
            f"{called}(): the gain of a branch comes after sandwich_norm's second norm here, there before it"
        )
    offset = left.pop("norm_add_unit_offset", None)
    own = not {"use_simple_rmsnorm", *_ADAPTIVE[:2]} & {name for name, value in left.items() if value}
    return ({"layer_scale": start} if scaled else {}) | ({"norm_unit_offset": offset} if offset and own else {})


def _ordered(called: str, left: dict[str, Any]) -> dict[str, Any]:
    """Pop the keywords about the order that we have no keyword for; returns a pattern in place of all of the order."""
    only_attn, tied = left.pop("only_attn", False), left.pop("weight_tie_layers", False)
    execute = left.pop("layers_execute_order", None)
    zero = {kind: left.pop(f"{part}_zero_init_output", False) for kind, part in (("a", "attn"), ("f", "ff"))}
    zero["c"] = zero["a"]
    lists = _lists(left)
    if not (only_attn or tied or execute is not None or any(zero.values()) or lists):
        return {}
    if left.get("pattern") is not None:
        raise TypeError(f"{called}(): give the order as pattern= or by other keywords, not both")
    ordering = {name: left.pop(name) for name in (*ORDERING, "shift_tokens", "layer_dropout") if name in left}
    out = {name: ordering.pop(name) for name in _OF_EACH if not isinstance(ordering.get(name, ()), list | tuple)}
    depth = ordering.get("depth")
    if tied:
        ordering["depth"] = 1
    words = words_of(**ordering)
    places = [next(i for i, word in enumerate(block) if word[0] not in "^<") for block in words]
    kinds = [block[at][0] for block, at in zip(words, places, strict=True)]
    for kind in zero:
        if zero[kind]:
            lists.setdefault(kind, {})["zero_init_branch_output"] = [True] * kinds.count(kind)
    for kind, options in lists.items():
        for option, values in options.items():
            _write(called, words, [(i, places[i]) for i, each in enumerate(kinds) if each == kind], option, values)
    if (tied or execute is not None or only_attn) and any(len(block) > 1 for block in words):
        raise TypeError(f"{called}(): unet_skips and add_value_residual are of blocks that run once, in their order")
    if only_attn:
        words = [block for block, kind in zip(words, kinds, strict=True) if kind != "f"]
    if tied:
        return out | {"pattern": f"({' '.join(f'{text}@x{i}' for i, (text,) in enumerate(words))})*{depth or 1}"}
    order = [*range(len(words))] if execute is None else [*execute]
    if any(not 0 <= i < len(words) for i in order):
        raise TypeError(
            f"{called}(layers_execute_order={tuple(order)}) names a layer that is not among the {len(words)}"
        )
    numbered = {i for i in order if order.count(i) > 1}
    if sorted({*order}) != list(dict.fromkeys(order)):  # not first run by their number, which weights go by
        numbered = {*order}
    blocks = [" ".join(words[i]) + (f"@x{i}" if i in numbered else "") for i in order]
    return out | {"pattern": " ".join(blocks)}


_OF_EACH = ("shift_tokens", "layer_dropout")
"""Keywords of which ours take a list, too."""

_PARTS = {"cross_attn_": "c", "attn_": "a", "ff_": "f"}


def _lists(left: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Pop the keywords that have a value for each layer of a kind; kind → option → its values."""
    known, out = table(), {}  # type: dict[str, Any], dict[str, dict[str, Any]]
    for name in [*left]:
        kind = next((kind for prefix, kind in _PARTS.items() if name.startswith(prefix)), None)
        option = known.get(name)
        if kind is None or option is None or option.many or option.pair or not isinstance(left[name], list | tuple):
            continue
        own = next(each.name for each in all_kinds()[kind].written_options() if each.setting == name)
        out.setdefault(kind, {})[own] = left.pop(name)
    return out


def _write(called: str, words: list[list[str]], places: list[tuple[int, int]], option: str, values: Any) -> None:
    """Give each of these blocks its value of an option."""
    if len(values) != len(places):
        raise TypeError(f"{called}(): {option} has {len(values)} values for {len(places)} layers")
    for (block, at), value in zip(places, values, strict=True):
        words[block][at] = with_option(words[block][at], f"{option}={spell(value)}")


# Layers --------------------------------------------------------------------------------------------------------------


def layer_keywords_of(called: str, part: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a single layer, in our names; `part` is "attn_" or "ff_", which they have on a stack."""
    left = {part + name: value for name, value in keywords.items()}
    _drop_defaults(called, left, "")
    out = _renamed(called, left) | left
    if out.pop(part + "zero_init_output", False):
        out[part + "zero_init_branch_output"] = True
    return {name.removeprefix(part): value for name, value in out.items()}
