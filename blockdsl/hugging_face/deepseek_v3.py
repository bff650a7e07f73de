"""DeepSeek-V3 and R1 (arXiv:2412.19437): as V2, with sigmoid scores and a bias by which experts are chosen."""

from __future__ import annotations

from .config import Config
from .deepseek_v2 import deepseek, expert_settings
from .family import Component, Family

_USUAL = {"n_routed_experts": 256, "n_shared_experts": 1, "moe_intermediate_size": 2048, "num_experts_per_tok": 8}


def _read(config: Config) -> dict[str, Component]:
    config.only("scoring_func", "sigmoid", "experts have other scores")
    config.only("topk_method", "noaux_tc", "experts are chosen in another way")
    config.ignore("aux_loss_alpha")  # of a loss that transformers does not have: the bias balances
    config.ignore("num_nextn_predict_layers", "num_mtp_layers")  # of layers that predict further tokens
    experts = {
        "moe_router": "sigmoid",
        "moe_renormalise": config.flag("norm_topk_prob", True),
        "moe_weight_scale": config.number("routed_scaling_factor", 2.5),
        "moe_correction_rate": 0.0,
        "moe_balance_loss": 0.0,
        "moe_groups": config.integer("n_group", 8),
        "moe_top_groups": config.integer("topk_group", 4),
        **expert_settings(config, _USUAL),
    }
    interleaved = config.flag("rope_interleave", True)
    return {"": deepseek(config, experts, interleaved, q_rank=1536, dense=3, length=4096)}


FAMILY = Family(
    model_types=("deepseek_v3",),
    architectures=("DeepseekV3ForCausalLM",),
    base="DeepseekV3Model",
    prefix="model.",
    source="arXiv:2412.19437",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
    unused=("model.layers.61.",),  # predicts further tokens
)
