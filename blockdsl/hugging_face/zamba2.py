"""Zamba2 (Zyphra, arXiv:2411.15242): Mamba-2, in some layers after a transformer block that a few layers share.

The shared block, one of `num_mem_blocks` in turn, reads the stream with the embedding beside it. What it gives goes
through a linear layer of the layer's own, and is added to what that layer's Mamba-2 reads; the stream gets nothing else
of it. In each of its uses it has low-rank terms of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from .config import Config
from .decoder import decoder_sizes, logits_rows, logits_settings, rotary_settings
from .family import Component, Family, Row, Tied, Weight
from .layers import layer_types, repeated
from .state_space import state_space_rows, state_space_settings

_TYPES = ("linear_attention", "hybrid")
_HYBRIDS = (6, 12, 18, 24, 30, 36, 42, 47, 51)  # of 54 layers, where the configuration does not say
_ALONE = "scale_residual_constant=0"  # a block in the stream's place


def _read(config: Config) -> dict[str, Component]:
    layers, dim = config.integer("num_hidden_layers", 54), config.integer("hidden_size", 2560)
    usual = [_TYPES[i in _HYBRIDS] for i in range(layers)]
    hybrids = [i for i, each in enumerate(layer_types(config, usual, _TYPES)) if each == "hybrid"]
    sizes = decoder_sizes(config, dim_head=2 * dim // config.integer("num_attention_heads", 32), length=4096)
    if config.flag("use_long_context", False):
        sizes["max_seq_len"] = 16384
    for name, value in (("attention_hidden_size", 2 * dim), ("attention_head_dim", sizes["attn_dim_head"])):
        config.only(name, value, f"transformers makes it {value} whatever is said")
    inner = config.integer("intermediate_size", 4 * dim)
    config.only("ffn_hidden_size", inner, "it is not intermediate_size")
    config.only("hybrid_layer_ids", hybrids, f"layers_block_type says {hybrids}")
    config.ignore("kv_channels", "num_query_groups", "use_long_context")
    eps, rank = config.number("rms_norm_eps", 1e-5), config.integer("adapter_rank", 128)
    bias = config.flag("add_bias_linear", False)
    config.only("tie_word_embeddings", True, "transformers shares no block then either, and each is another")
    adapted = config.flag("use_shared_attention_adapter", False)
    if adapted and sizes["attn_kv_heads"] is not None:
        raise config.lacks(f"num_key_value_heads={sizes['attn_kv_heads']}", "adapters make keys for all heads")
    rotated = config.flag("use_mem_rope", False)
    settings = {
        **sizes,
        "attn_qk_scale": (sizes["attn_dim_head"] / 2) ** -0.5,
        "attn_lora_rank": rank if adapted else None,
        **_state_space(config, dim, bias),
        "use_rmsnorm": True,
        "norm_eps": eps,
        **(rotary_settings(config, sizes["attn_dim_head"]) if rotated else {"use_abs_pos_emb": False}),
        "ff_inner": inner,
        "ff_glu": True,
        "ff_gate_first": True,
        "ff_activation": config.activation("hidden_act", "gelu"),
        "ff_no_bias": not bias,
        "ff_lora_rank": rank,
        **logits_settings(config, tied=True),
    }
    config.ignore("rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor")
    blocks = config.integer("num_mem_blocks", 1)
    texts, kinds = ["m"] * layers, ["m"] * layers  # each layer as it is written, and its blocks
    for use, i in enumerate(hybrids):
        tie = "" if blocks == 1 else str(use % blocks + 1)
        texts[i] = f"^x a(concat=e, {_ALONE})@a{tie} f({_ALONE})@f{tie} <x(linear) m({_ALONE}) <x"
        kinds[i] = "a f m"
    rows = [
        Weight("token_emb", "model.embed_tokens"),
        *_state_space_rows(layers, hybrids),
        *(
            row
            for first in range(blocks)
            for row in _shared_rows(sizes, hybrids[first::blocks], first, blocks, adapted)
        ),
        *(Weight(f"attn_layers.joins.read{2 * n}.linear", f"model.layers.{i}.linear") for n, i in enumerate(hybrids)),
        Weight("attn_layers.norm", "model.final_layernorm"),
        *logits_rows(config, tied=True),
    ]
    return {"": Component(f"^e {repeated(texts)}", settings, rows, kinds)}


def _state_space(config: Config, dim: int, bias: bool) -> dict[str, Any]:
    inner, heads = config.integer("mamba_expand", 2) * dim, config.integer("n_mamba_heads", 8)
    config.only("mamba_headdim", inner // heads, f"{heads} heads of {inner} features (mamba_expand) are of others")
    config.ignore("time_step_limit", "use_conv_bias")  # nothing reads them: the convolution has a bias
    settings = state_space_settings(
        config,
        eps=1e-5,
        inner=inner,
        state=config.integer("mamba_d_state", 64),
        heads=heads,
        dim_head=inner // heads,
        groups=config.integer("mamba_ngroups", 1),
        kernel=config.integer("mamba_d_conv", 4),
    )
    least = config.number("time_step_min", 0.001)
    return {**settings, "ssm_dt_limit_min": least, "ssm_dt_limit_max": None, "ssm_bias": bias}


# Blocks are numbered through the text: a layer is one, and a hybrid layer three.


def _state_space_rows(layers: int, hybrids: Sequence[int]) -> Iterator[Row]:
    for i in range(layers):
        node = f"m{i + 2 * sum(hybrid <= i for hybrid in hybrids)}"
        layer = f"model.layers.{i}." + ("mamba_decoder." if i in hybrids else "")
        for row in (Weight("m.norm", layer + "input_layernorm"), *state_space_rows(layer + "mamba")):
            assert isinstance(row, Weight)
            yield replace(row, ours=f"attn_layers.blocks.{node}.{row.ours.removeprefix('m.')}")


def _shared_rows(sizes: dict[str, Any], uses: Sequence[int], first: int, blocks: int, adapted: bool) -> Iterator[Row]:
    """Of a shared block, whose uses are these layers: every so many of the hybrid ones, from `first` on."""
    if not uses:
        return
    number, (here, *others) = uses[0] + 2 * first, (f"model.layers.{i}.shared_transformer." for i in uses)
    a, f = f"attn_layers.blocks.a{number}.", f"attn_layers.blocks.f{number + 1}."
    attention, feedforward = f"{here}self_attn.", f"{here}feed_forward."
    query, keys = (n * sizes["attn_dim_head"] for n in (sizes["heads"], sizes["attn_kv_heads"] or sizes["heads"]))
    rows = [
        Weight(f"{a}norm", f"{here}input_layernorm"),
        Weight(f"{a}layer.to_qkv", tuple(f"{attention}{part}_proj" for part in "qkv"), sizes=(query, keys, keys)),
        Weight(f"{a}layer.output.to_out", f"{attention}o_proj"),
        Weight(f"{f}norm", f"{here}pre_ff_layernorm"),
        Weight(f"{f}layer.to_hidden", f"{feedforward}gate_up_proj"),
        Weight(f"{f}layer.to_out", f"{feedforward}down_proj"),
    ]
    adapters = {f: [f"{feedforward}gate_up_proj_adapter_list"]}
    if adapted:
        adapters[a] = [f"{attention}linear_{part}_adapter_list" for part in "qkv"]
    numbers = tuple(first + blocks * use for use in range(len(uses)))
    for block, lists in adapters.items():
        for place, own in enumerate(("down_weight", "up_weight")):
            names = tuple(f"{each}.{{e}}.{place}.weight" for each in lists)
            rows.append(Weight(f"{block}layer.lora.{own}", names, experts=numbers))
    yield from rows
    for name in (name for row in rows for name in row.names):
        for whole in [name] if name.endswith(".weight") else [f"{name}.weight", f"{name}.bias"]:
            yield from (Tied(whole.replace(here, other), whole) for other in others)


FAMILY = Family(
    model_types=("zamba2",),
    architectures=("Zamba2ForCausalLM",),
    base="Zamba2Model",
    prefix="model.",
    source="arXiv:2411.15242",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
