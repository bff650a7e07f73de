"""Nemotron-H (NVIDIA, arXiv:2504.03624): layers of one block, Mamba-2, attention without positions, feedforward."""

from __future__ import annotations

from .config import Config
from .decoder import decoder_sizes, logits_rows, logits_settings
from .family import Component, Family, Weight
from .layers import layer_types, lettered, repeated
from .state_space import state_space_rows, state_space_settings

_BLOCKS = {"linear_attention": "m", "full_attention": "a", "mlp": "f"}


def _read(config: Config) -> dict[str, Component]:
    sizes = decoder_sizes(config, kv_heads=8, dim_head=128, length=4096)
    eps = config.number("layer_norm_epsilon", 1e-5)
    letters = lettered(config)
    said = config.get("layers_block_type", config.get("layer_types", letters))
    config.only("num_hidden_layers", len(said), f"there are {len(said)} layers")
    types = layer_types(config, letters or ("mlp",) * len(said), {**_BLOCKS, "moe": "e"})
    if "moe" in types:
        raise config.lacks("a layer of experts (moe)", "its experts are not gated")
    config.only("sliding_window", None, "attention has a window")
    config.only("attention_bias", False, "attention has biases")
    config.only("num_nextn_predict_layers", 0, "further layers predict later tokens")
    config.only("mamba_hidden_act", "silu", "the state space has another activation")
    config.ignore("time_step_limit", "mamba_proj_bias", "expand", "mtp_layers_block_type", *_OF_EXPERTS.split())
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
        "ssm_dt_limit_min": config.number("time_step_min", 0.001),
        "ssm_dt_limit_max": None,
        "ssm_conv_bias": config.flag("use_conv_bias", True),
        "ssm_bias": config.flag("use_bias", False),
        "use_abs_pos_emb": False,
        "use_rmsnorm": True,
        "norm_eps": eps,
        "ff_inner": config.integer("intermediate_size"),
        "ff_activation": config.activation("mlp_hidden_act", "relu2"),
        "ff_no_bias": not config.flag("mlp_bias", False),
        **logits_settings(config),
    }
    layer = "backbone.layers.{i}."
    query, keys = (n * sizes["attn_dim_head"] for n in (sizes["heads"], sizes["attn_kv_heads"] or sizes["heads"]))
    rows = [
        Weight("token_emb", "backbone.embeddings"),
        *(Weight(f"{kind}.norm", layer + "norm") for kind in "maf"),
        *state_space_rows(layer + "mixer"),
        Weight("a.layer.to_qkv", tuple(f"{layer}mixer.{part}_proj" for part in "qkv"), sizes=(query, keys, keys)),
        Weight("a.layer.output.to_out", layer + "mixer.o_proj"),
        Weight("f.layer.to_hidden", layer + "mixer.up_proj"),
        Weight("f.layer.to_out", layer + "mixer.down_proj"),
        Weight("attn_layers.norm", "backbone.norm_f"),
        *logits_rows(config, embedding="backbone.embeddings"),
    ]
    blocks = [_BLOCKS[each] for each in types]
    return {"": Component(repeated(blocks), settings, rows, blocks)}


# Keys about experts, which say nothing where no layer has any.
_OF_EXPERTS = """
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
