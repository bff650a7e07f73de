"""DeepSeek-V2 and V3: latent attention, experts in groups and dense layers before them, YaRN with a scale of scores."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM, DeepseekV3Config, DeepseekV3ForCausalLM

from blockdsl import UserError
from blockdsl.hugging_face import read

from .agreement import agreement, check

SMALL: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 30,
    "moe_intermediate_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_routed_experts": 6,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 6,
    "q_lora_rank": 5,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 6,
    "v_head_dim": 5,
    "max_position_embeddings": 40,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 10,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 0.7,
}
V2, V3 = (DeepseekV2Config, DeepseekV2ForCausalLM), (DeepseekV3Config, DeepseekV3ForCausalLM)
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "V2": (V2, {"topk_method": "group_limited_greedy", "n_group": 3, "topk_group": 2, "routed_scaling_factor": 16.0}),
    "V2-Lite, scaled": (V2, {"q_lora_rank": None, "rope_parameters": YARN}),
    "V3, scaled": (V3, {"n_group": 3, "topk_group": 2, "rope_parameters": YARN}),
    "V3, biases, halves, dense": (
        V3,
        {"attention_bias": True, "rope_interleave": False, "first_k_dense_replace": 3, "num_hidden_layers": 2},
    ),
}


def peer(case: str) -> Any:
    (config, model), own = CASES[case]
    return model(config(**SMALL | own))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


@pytest.mark.parametrize(
    ("model_type", "own", "problem"),
    [
        ("deepseek_v2", {"topk_method": "noaux_tc"}, "topk_method='noaux_tc': experts are chosen in another way"),
        ("deepseek_v2", {"norm_topk_prob": True}, "norm_topk_prob=True"),
        ("deepseek_v3", {"scoring_func": "softmax"}, "scoring_func='softmax': experts have other scores"),
        ("deepseek_v3", {"num_key_value_heads": 2}, "num_key_value_heads=2: heads share keys and values"),
        ("deepseek_v3", {"attention_bias": True, "q_lora_rank": None}, "latents have a bias and queries have none"),
    ],
)
def test_what_is_refused(model_type: str, own: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        read({"model_type": model_type, "n_group": 3, "topk_group": 2, **SMALL, **own})
