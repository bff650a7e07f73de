"""Nemotron-H (NVIDIA, arXiv:2504.03624): layers of one block, Mamba-2, attention without positions, feedforward; in
Nemotron 3 (arXiv:2512.20848) experts that are not gated."""

from __future__ import annotations

from typing import Any

from .config import Config
from .decoder import decoder_sizes, logits_rows, logits_settings
from .family import Component, Family, Row, Weight
from .layers import layer_types, lettered, repeated
from .state_space import state_space_rows, state_space_settings

_BLOCKS = {"linear_attention": "m", "full_attention": "a", "mlp": "f", "moe": "e"}


def _read(config: Config) -> dict[str, Component]:
    sizes = decoder_sizes(config, kv_heads=8, dim_head=128, length=4096)
    eps = config.number("layer_norm_epsilon", 1e-5)
    letters = lettered(config)
    said = config.many("layers_block_type", config.many("layer_types", letters))
    config.only("num_hidden_layers", len(said), f"there are {len(said)} layers")
    types = layer_types(config, letters or ("mlp",) * len(said), _BLOCKS)
    for name, value in (  # what NVIDIA's own files say twice
        ("attention_head_dim", sizes["attn_dim_head"]),
        ("num_query_groups", sizes["attn_kv_heads"] or sizes["heads"]),
        ("rms_norm_eps", eps),
    ):
        config.only(name, value, f"another key says {value}")
    config.only("sliding_window", None, "attention has a window")
    config.only("attention_bias", False, "attention has biases")
    config.only("num_nextn_predict_layers", 0, "further layers predict later tokens")
    config.only("mamba_hidden_act", "silu", "the state space has another activation")
    config.ignore("time_step_limit", "mamba_proj_bias", "expand", "mtp_layers_block_type")
    config.ignore(*_OF_SOME_LAYERS.split())
    settings = {
        **sizes,
        **state_space_settings(
            config,
            eps=eps,
            inner=None,
            state=config.integer("ssm_state_size", 128),
            heads=config.integer("mamba_num_heads", 128),
            dim_head=config.integer("mamba_head_dim", 64),
            groups=config.integer("n_groups", 8),
            kernel=config.integer("conv_kernel", 4),
        ),
        "ssm_dt_limit_min": config.number("time_step_min", 0.001, least=0),
        "ssm_dt_limit_max": None,
        "ssm_conv_bias": config.flag("use_conv_bias", True),
        "ssm_bias": config.flag("use_bias", False),
        "use_abs_pos_emb": False,
        "use_rmsnorm": True,
        "norm_eps": eps,
        **(_feedforwards(config) if "mlp" in types else {}),
        **(experts := _experts(config) if "moe" in types else {}),
        **logits_settings(config),
    }
    layer = "backbone.layers.{i}."
    query, keys = (n * sizes["attn_dim_head"] for n in (sizes["heads"], sizes["attn_kv_heads"] or sizes["heads"]))
    rows = [
        Weight("token_emb", "backbone.embeddings"),
        *(Weight(f"{kind}.norm", layer + "norm") for kind in "mafe"),
        *state_space_rows(layer + "mixer"),
        Weight("a.layer.to_qkv", tuple(f"{layer}mixer.{part}_proj" for part in "qkv"), sizes=(query, keys, keys)),
        Weight("a.layer.output.to_out", layer + "mixer.o_proj"),
        Weight("f.layer.to_hidden", layer + "mixer.up_proj"),
        Weight("f.layer.to_out", layer + "mixer.down_proj"),
        *(_expert_rows(layer + "mixer.", experts["moe_experts"]) if experts else ()),
        Weight("attn_layers.norm", "backbone.norm_f"),
        *logits_rows(config, embedding="backbone.embeddings"),
    ]
    blocks = [_BLOCKS[each] for each in types]
    return {"": Component(repeated(blocks), settings, rows, blocks)}


def _feedforwards(config: Config) -> dict[str, Any]:
    return {
        "ff_inner": config.integer("intermediate_size"),
        "ff_activation": config.activation("mlp_hidden_act", "relu2"),
        "ff_no_bias": not config.flag("mlp_bias", False),
    }


def _experts(config: Config) -> dict[str, Any]:
    config.only("mlp_bias", False, "the shared expert has biases, and the others have none")
    config.only("moe_latent_size", None, "experts read and write fewer features than the stream has")
    return {
        "moe_router": "sigmoid",
        "moe_experts": config.integer("n_routed_experts", config.integer("num_local_experts", 8)),
        "moe_top": config.integer("num_experts_per_tok", 2),
        "moe_inner": config.integer("moe_intermediate_size", 7688),
        "moe_shared_inner": config.integer("moe_shared_expert_intermediate_size", 7688),
        "moe_activation": config.activation("mlp_hidden_act", "relu2"),
        "moe_no_bias": True,
        "moe_renormalise": config.flag("norm_topk_prob", True),
        "moe_weight_scale": config.number("routed_scaling_factor", 1.0),
        "moe_correction_rate": 0.0,
        "moe_balance_loss": 0.0,
        "moe_groups": config.integer("n_group", 1),
        "moe_top_groups": config.integer("topk_group", 1),
    }


def _expert_rows(mixer: str, experts: int) -> list[Row]:
    names = {"to_hidden": "up_proj", "to_out": "down_proj"}
    return [
        Weight("e.layer.router", mixer + "gate"),
        Weight("e.layer.router.correction", mixer + "gate.e_score_correction_bias"),
        *(Weight(f"e.layer.{own}", f"{mixer}experts.{{e}}.{name}", experts=experts) for own, name in names.items()),
        *(Weight(f"e.layer.shared.{own}", f"{mixer}shared_experts.{name}") for own, name in names.items()),
    ]


# Keys about feedforwards and experts, which say nothing where no layer has them, and of how experts are computed.
_OF_SOME_LAYERS = """
intermediate_size mlp_hidden_act mlp_bias
n_routed_experts num_local_experts n_shared_experts moe_intermediate_size moe_shared_expert_intermediate_size
moe_latent_size moe_shared_expert_overlap num_experts_per_tok routed_scaling_factor n_group topk_group norm_topk_prob
"""


FAMILY = Family(
    model_types=("nemotron_h",),
    architectures=("NemotronHForCausalLM",),
    base="NemotronHModel",
    prefix="backbone.",
    source="arXiv:2504.03624",
    read=_read,
)
