"""Families with experts: Mixtral, Qwen's and gpt-oss."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from blockdsl import UserError
from blockdsl.hugging_face import read

from .agreement import agreement, check

SMALL: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 12,  # their products of groups take multiples of 4
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 40,
}
MIXTRAL: dict[str, dict[str, Any]] = {
    "experts": {"num_local_experts": 5},
    "windows, tied": {"num_local_experts": 3, "sliding_window": 4, "head_dim": 6, "tie_word_embeddings": True},
}
QWEN3: dict[str, dict[str, Any]] = {
    "weights sum to 1": {"norm_topk_prob": True},
    "among feedforwards": {"decoder_sparse_step": 2, "mlp_only_layers": [3], "num_hidden_layers": 5},
    "windows": {"use_sliding_window": True, "sliding_window": 4, "attention_bias": True},
}
QWEN2: dict[str, dict[str, Any]] = {
    "a shared expert": {"shared_expert_intermediate_size": 9},
    "among feedforwards": {"decoder_sparse_step": 2, "qkv_bias": False, "norm_topk_prob": True},
}
GPT_OSS: dict[str, dict[str, Any]] = {
    "windows in every other layer": {"sliding_window": 4, "num_hidden_layers": 3},
    "scaled": {"rope_parameters": None, "max_position_embeddings": 131072, "head_dim": 32},
    "bounds reached": {"swiglu_limit": 0.01, "layer_types": ["full_attention", "full_attention"]},
}


def mixtral(case: str) -> MixtralForCausalLM:
    return MixtralForCausalLM(MixtralConfig(**SMALL | MIXTRAL[case]))


def qwen3(case: str) -> Qwen3MoeForCausalLM:
    own = {"moe_intermediate_size": 8, "num_experts": 6, "head_dim": 6}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SMALL | own | QWEN3[case]))


def qwen2(case: str) -> Qwen2MoeForCausalLM:
    return Qwen2MoeForCausalLM(Qwen2MoeConfig(**SMALL | {"moe_intermediate_size": 8, "num_experts": 6} | QWEN2[case]))


def gpt_oss(case: str) -> GptOssForCausalLM:
    plain = {"rope_type": "default", "rope_theta": 150000.0}
    own = {"head_dim": 6, "num_local_experts": 4, "rope_parameters": plain}
    return GptOssForCausalLM(GptOssConfig(**SMALL | own | GPT_OSS[case]))


PEERS = {
    "mixtral": (mixtral, MIXTRAL),
    "qwen2_moe": (qwen2, QWEN2),
    "qwen3_moe": (qwen3, QWEN3),
    "gpt_oss": (gpt_oss, GPT_OSS),
}
CASES = {f"{family}: {case}": (make, case) for family, (make, cases) in PEERS.items() for case in cases}


def peer(case: str) -> Any:
    make, own = CASES[case]
    return make(own)


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_what_is_refused_is_refused_by_name() -> None:
    said = {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], **SMALL, "num_local_experts": 4}
    assert (
        "moe_balance_loss=0.04" in read(said | {"router_aux_loss_coef": 0.02, "output_router_logits": True}).texts[""]
    )
    assert "moe_balance_loss=0" in read(said).texts[""]
    with pytest.raises(UserError, match="router_jitter_noise"):
        read(said | {"router_jitter_noise": 0.1})
