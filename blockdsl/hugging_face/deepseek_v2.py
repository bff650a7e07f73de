"""DeepSeek-V2 and V2-Lite (arXiv:2405.04434): latent attention, and experts beside shared ones, in groups by device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .config import Config
from .decoder import LAYER, gated_rows, gated_settings, logits_rows, logits_settings, rotary_settings
from .experts import expert_rows
from .family import Component, Family, Row, Weight
from .latent import latent_rows, latent_settings, score_scale
from .layers import repeated


def _read(config: Config) -> dict[str, Component]:
    config.only("mlp_bias", False, "feedforwards have a bias, and experts have none")
    config.only("norm_topk_prob", False, "transformers leaves the weights of experts as they are")
    config.only("scoring_func", "softmax", "experts have other scores")
    method = config.word("topk_method", "greedy")
    groups: dict[str, Any] = {}
    if method == "group_limited_greedy":
        best = {"moe_group_best": 1}
        groups = {"moe_groups": config.integer("n_group"), "moe_top_groups": config.integer("topk_group"), **best}
    elif method != "greedy":
        raise config.lacks(f"topk_method={method!r}", "experts are chosen in another way")
    config.ignore("n_group", "topk_group")  # of that method alone
    experts = {
        "moe_router": "softmax",
        "moe_renormalise": False,
        "moe_weight_scale": config.number("routed_scaling_factor", 1.0),
        "moe_balance_loss": config.number("aux_loss_alpha", 0.0, least=0),
        **groups,
        **expert_settings(config, {"n_routed_experts": 64, "n_shared_experts": 2, "moe_intermediate_size": 1407}),
    }
    return {"": deepseek(config, experts, interleaved=True, q_rank=1536, dense=0, length=2048)}


def expert_settings(config: Config, usual: Mapping[str, int]) -> dict[str, Any]:
    """How many experts there are, how many a token reads, and how large they are.

    Args:
        usual: of the family, where the configuration does not say.
    """
    sizes = {name: config.integer(name, value) for name, value in usual.items()}
    config.only("moe_layer_freq", 1, "experts are in some of the layers after the first")
    config.ignore("ep_size", "seq_aux")  # of training on several devices, and of the balance's loss
    return {
        "moe_experts": sizes["n_routed_experts"],
        "moe_top": config.integer("num_experts_per_tok", usual.get("num_experts_per_tok")),
        "moe_inner": sizes["moe_intermediate_size"],
        "moe_glu": True,
        "moe_activation": config.activation("hidden_act", "silu"),
        "moe_no_bias": True,
        "moe_shared_inner": sizes["moe_intermediate_size"] * sizes["n_shared_experts"],
    }


def deepseek(
    config: Config, experts: dict[str, Any], interleaved: bool, q_rank: int, dense: int, length: int
) -> Component:
    """The model but for its experts.

    Args:
        experts: their settings.
        interleaved: rotary positions rotate neighbours.
        q_rank, dense, length: of the family, where the configuration does not say; dense: the first layers without
            experts.
    """
    layers = config.integer("num_hidden_layers")
    dense = min(config.integer("first_k_dense_replace", dense, least=0), layers)
    attention = latent_settings(config, q_rank)
    shared = attention["attn_shared_key_dim"]
    kinds = ["a f"] * dense + ["a e"] * (layers - dense)
    settings = {
        **attention,
        **score_scale(config, attention["attn_dim_head"]),
        "num_tokens": config.integer("vocab_size"),
        "max_seq_len": config.integer("max_position_embeddings", length),
        "use_rmsnorm": True,
        "norm_eps": config.number("rms_norm_eps", 1e-6),
        **rotary_settings(config, shared),
        "rotary_interleaved": interleaved,
        **(gated_settings(config) if dense else {}),
        **(experts if dense < layers else {}),
        **logits_settings(config),
    }
    config.ignore("intermediate_size")  # without dense layers
    rows: list[Row] = [
        Weight("token_emb", "model.embed_tokens"),
        Weight("a.norm", LAYER + "input_layernorm"),
        *latent_rows(attention),
        *(Weight(f"{kind}.norm", LAYER + "post_attention_layernorm") for kind in "fe"),
        *gated_rows(),
        *expert_rows(experts["moe_experts"]),
        *shared_rows(),
        Weight("attn_layers.norm", "model.norm"),
        *logits_rows(config),
    ]
    return Component(repeated(kinds), settings, rows, kinds)


def shared_rows() -> list[Row]:
    """The bias by which experts are chosen, and the expert that every token reads."""
    shared = LAYER + "mlp.shared_experts."
    return [
        Weight("e.layer.router.correction", LAYER + "mlp.gate.e_score_correction_bias"),
        Weight("e.layer.shared.to_hidden", (shared + "up_proj", shared + "gate_proj")),
        Weight("e.layer.shared.to_out", shared + "down_proj"),
    ]


FAMILY = Family(
    model_types=("deepseek_v2",),
    architectures=("DeepseekV2ForCausalLM",),
    base="DeepseekV2Model",
    prefix="model.",
    source="arXiv:2405.04434",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
