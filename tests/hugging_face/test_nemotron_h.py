"""Nemotron-H: layers of one block each, by names and by letters; experts of the stream's width, and no others.

With a bias of the first linear layer their convolution reads what it makes of padding, and a row is not what it is alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from transformers import NemotronHConfig, NemotronHForCausalLM

from blockdsl import UserError
from blockdsl.hugging_face import read

from .agreement import agreement, check

SMALL = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 27,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "mamba_num_heads": 4,
    "mamba_head_dim": 5,
    "ssm_state_size": 3,
    "n_groups": 2,
    "chunk_size": 4,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
M, A, F, E = "linear_attention", "full_attention", "mlp", "moe"
EXPERTS = {"n_routed_experts": 6, "moe_intermediate_size": 12, "moe_shared_expert_intermediate_size": 9}
CASES: dict[str, dict[str, Any]] = {
    "hybrid": {"layers_block_type": [M, F, M, F, A, F]},
    "another activation": {"layers_block_type": [A, M, F], "mlp_hidden_act": "silu", "n_groups": 1, "conv_kernel": 3},
    "experts": {"layers_block_type": [M, E, A, E, F], **EXPERTS, "routed_scaling_factor": 2.5}
    | {"n_group": 3, "topk_group": 2, "num_experts_per_tok": 3},
}


def peer(case: str) -> NemotronHForCausalLM:
    return model(CASES[case])


def model(config: dict[str, Any]) -> NemotronHForCausalLM:
    return NemotronHForCausalLM(NemotronHConfig(**SMALL | config))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_biases_agree_but_for_padding() -> None:
    """Theirs is zero before a linear layer, whose bias their convolution then reads at padding; ours sees nothing."""
    biases = {"layers_block_type": [A, M, M], "use_bias": True, "mlp_bias": True, "layer_norm_epsilon": 1e-3}
    check(replace(agreement(model(biases)), padded=0.0, tokens=None))


def test_letters_are_layers() -> None:
    letters = {"model_type": "nemotron_h", **SMALL, "hybrid_override_pattern": "M-M-*-" * 2, "num_hidden_layers": 12}
    assert read(letters).texts[""].endswith("; (m f m f a f)*2")
    with pytest.raises(UserError, match="12 layers"):
        read({**letters, "num_hidden_layers": 11})


def test_experts_of_another_width_are_refused() -> None:
    experts = {"model_type": "nemotron_h", **SMALL, "hybrid_override_pattern": "ME", "num_hidden_layers": 2, **EXPERTS}
    assert read(experts).texts[""].endswith("; m e")
    with pytest.raises(UserError, match="moe_latent_size=8: experts read and write fewer features than the stream has"):
        read({**experts, "moe_latent_size": 8})
    with pytest.raises(UserError, match="mlp_bias=True: the shared expert has biases"):
        read({**experts, "mlp_bias": True})
