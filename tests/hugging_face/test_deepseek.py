"""Configurations of DeepSeek-V2 and V3: what is published, what is left out and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import xt_blocks
from blockdsl import UserError, zoo
from blockdsl.hugging_face import read

from .small_deepseek import SMALL
from .test_deepseek_v3 import peer


def test_layers_that_predict_further_tokens_are_left_out() -> None:
    theirs = peer("biases, halves, dense")
    tensors = theirs.state_dict() | {"model.layers.61.eh_proj.weight": torch.ones(16, 32)}
    theirs.state_dict = lambda: tensors
    with pytest.warns(UserWarning, match=r"of another head: model\.layers\.61\.eh_proj\.weight"):
        xt_blocks.from_hugging_face(theirs)


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


# As their files have them, without the keys of what wrote them.
PUBLISHED_LITE: dict[str, Any] = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "attention_bias": False,
    "aux_loss_alpha": 0.001,
    "first_k_dense_replace": 1,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v2",
    "moe_intermediate_size": 1408,
    "moe_layer_freq": 1,
    "n_group": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 0.707,
        "mscale_all_dim": 0.707,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 1.0,
    "scoring_func": "softmax",
    "seq_aux": True,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "topk_method": "greedy",
    "v_head_dim": 128,
    "vocab_size": 102400,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "deepseek_v2-lite": PUBLISHED_LITE,
    "deepseek_v2-236b": PUBLISHED_LITE
    | {
        **{"hidden_size": 5120, "intermediate_size": 12288, "moe_intermediate_size": 1536, "q_lora_rank": 1536},
        **{"n_group": 8, "topk_group": 3, "topk_method": "group_limited_greedy", "n_routed_experts": 160},
        **{"num_attention_heads": 128, "num_key_value_heads": 128, "num_hidden_layers": 60},
        "routed_scaling_factor": 16.0,
    },
    "deepseek_v3-671b": PUBLISHED_LITE
    | {
        **{"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "vocab_size": 129280},
        **{"hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048, "q_lora_rank": 1536},
        **{"n_group": 8, "topk_group": 4, "topk_method": "noaux_tc", "scoring_func": "sigmoid"},
        **{"n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "norm_topk_prob": True},
        **{"num_attention_heads": 128, "num_key_value_heads": 128, "num_hidden_layers": 61, "first_k_dense_replace": 3},
        **{"num_nextn_predict_layers": 1, "ep_size": 1, "routed_scaling_factor": 2.5},
        "rope_scaling": PUBLISHED_LITE["rope_scaling"] | {"mscale": 1.0, "mscale_all_dim": 1.0},
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_is_the_entry_of_the_zoo(name: str) -> None:
    found = zoo.entry(name).graph().diff(read(PUBLISHED[name]).graphs()[""])
    assert not found, found.to_text()
    latents = (512 + 64) * 2  # bytes that each layer keeps of a token, in bfloat16
    layers = PUBLISHED[name]["num_hidden_layers"]
    assert zoo.entry(name).graph().kv_cache_bytes(1000, dtype="bfloat16") == 1000 * layers * latents
