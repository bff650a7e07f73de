"""Published configurations of OLMo, Gemma, Granite, Command R and StableLM, and what of such files is refused."""

from __future__ import annotations

from typing import Any

import pytest

from blockdsl.errors import UserError
from blockdsl.hugging_face import read

GEMMA: dict[str, Any] = {"head_dim": 256, "vocab_size": 256000, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}
GEMMA_2 = GEMMA | {
    "model_type": "gemma2",
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "cache_implementation": "hybrid",
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}

PUBLISHED: dict[str, tuple[int, dict[str, Any]]] = {
    "gemma-2b": (
        2_506_172_416,
        GEMMA
        | {
            "model_type": "gemma",
            "hidden_size": 2048,
            "intermediate_size": 16384,
            "num_hidden_layers": 18,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "hidden_act": "gelu",
        },
    ),
    "gemma-7b": (
        8_537_680_896,
        GEMMA
        | {
            "model_type": "gemma",
            "hidden_size": 3072,
            "intermediate_size": 24576,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
        },
    ),
    "gemma-2-9b": (
        9_241_705_984,
        GEMMA_2
        | {
            "hidden_size": 3584,
            "intermediate_size": 14336,
            "num_hidden_layers": 42,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "query_pre_attn_scalar": 256,
        },
    ),
    "gemma-2-27b": (
        27_227_128_320,
        GEMMA_2
        | {
            "hidden_size": 4608,
            "intermediate_size": 36864,
            "num_hidden_layers": 46,
            "num_attention_heads": 32,
            "num_key_value_heads": 16,
            "head_dim": 128,
            "query_pre_attn_scalar": 144,
        },
    ),
    "gemma-3-1b": (
        999_885_952,
        {
            "model_type": "gemma3_text",
            "hidden_size": 1152,
            "intermediate_size": 6912,
            "num_hidden_layers": 26,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "vocab_size": 262144,
            "max_position_embeddings": 32768,
            "rope_theta": 1000000,
            "rope_local_base_freq": 10000,
            "rope_scaling": None,
            "sliding_window": 512,
            "sliding_window_pattern": 6,
            "query_pre_attn_scalar": 256,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        },
    ),
    "OLMo-7B": (
        6_888_095_744,
        {
            "model_type": "olmo",
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "vocab_size": 50304,
            "clip_qkv": None,
        },
    ),
    "OLMo-2-7B": (
        7_298_617_344,
        {
            "model_type": "olmo2",
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "vocab_size": 100352,
            "rope_theta": 500000,
        },
    ),
    "granite-3.0-2b": (
        2_533_531_648,
        {
            "model_type": "granite",
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 40,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 49155,
            "tie_word_embeddings": True,
            "embedding_multiplier": 12.0,
            "attention_multiplier": 0.015625,
            "residual_multiplier": 0.22,
            "logits_scaling": 8.0,
        },
    ),
    "command-r": (
        34_980_831_232,
        {
            "model_type": "cohere",
            "hidden_size": 8192,
            "intermediate_size": 22528,
            "num_hidden_layers": 40,
            "num_attention_heads": 64,
            "num_key_value_heads": 64,
            "vocab_size": 256000,
            "rope_theta": 8000000.0,
        },
    ),
    "stablelm-2-1.6b": (
        1_644_515_328,
        {
            "model_type": "stablelm",
            "rope_theta": 10000,
            "partial_rotary_factor": 0.25,
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "vocab_size": 100352,
            "use_qkv_bias": True,
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_parameters_are_the_published_number(name: str) -> None:
    number, config = PUBLISHED[name]
    reading = read(config)
    assert reading.graphs()[""].parameters() == number


def test_gemma_3_of_older_files_and_of_newer_ones_is_one_model() -> None:
    sizes = {
        "model_type": "gemma3_text",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 50,
        "sliding_window": 5,
    }
    older = sizes | {
        "rope_theta": 1000000,
        "rope_local_base_freq": 20000,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window_pattern": 4,
    }
    newer = sizes | {
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 20000.0},
        },
        "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 2,
    }
    near, far = (
        "max_attend_past=4, rotary_theta=20000",
        "rotary_theta=1000000.0, rotary_scaling=linear, rotary_factor=8.0",
    )
    assert read(newer).parts[""].pattern == f"((a({near}.0) f)*3 a({far}) f)*2"
    assert not read(older).graphs()[""].diff(read(newer).graphs()[""])


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("OLMo-7B", {"clip_qkv": 8.0}, "clip_qkv=8.0: queries, keys and values are clipped"),
        ("gemma-2b", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True: tokens see later ones"),
        ("gemma-3-1b", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0: scores are capped"),
        (
            "gemma-3-1b",
            {"layer_types": ["chunked_attention"] * 26},
            "is not one of sliding_attention and full_attention",
        ),
        ("gemma-3-1b", {"layer_types": ["full_attention"]}, "is not one of sliding_attention and full_attention"),
        ("command-r", {"hidden_act": "mish"}, "hidden_act='mish': there is no such activation here"),
        ("stablelm-2-1.6b", {"use_qkv_bias": "yes"}, "use_qkv_bias must be true or false, not 'yes'"),
        ("granite-3.0-2b", {"residual_multiplyer": 0.1}, "residual_multiplyer=0.1; did you mean 'residual_multiplier'"),
    ],
)
def test_what_is_refused(name: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        read(PUBLISHED[name][1] | keys)
    assert message in str(error.value)


def test_caps_that_are_null_are_none_and_others_are_the_family_s() -> None:
    config = PUBLISHED["gemma-2-9b"][1]
    for cap, expected in ((None, (None, None)), (7.0, (7.0, 7.0))):
        graph = read(config | {"attn_logit_softcapping": cap, "final_logit_softcapping": cap}).graphs()[""]
        ends = graph.nx.nodes[graph.end]
        assert (graph.block("a0")["options"]["softcap"], ends["logits_softcap"]) == expected
    left_out = {name: value for name, value in config.items() if "softcapping" not in name}
    graph = read(left_out).graphs()[""]
    assert (graph.block("a0")["options"]["softcap"], graph.nx.nodes[graph.end]["logits_softcap"]) == (50.0, 30.0)
