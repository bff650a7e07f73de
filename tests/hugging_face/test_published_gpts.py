"""Published configurations of GPT-2 and what came of it, as their files have them, and their numbers of parameters."""

from __future__ import annotations

from typing import Any

import pytest

from blockdsl.hugging_face import read

GPT: dict[str, Any] = {
    "activation_function": "gelu_new",
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
}
NEOX: dict[str, Any] = {
    "architectures": ["GPTNeoXForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "model_type": "gpt_neox",
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_cache": True,
}
FALCON: dict[str, Any] = {
    "architectures": ["FalconForCausalLM"],
    "apply_residual_connection_post_layernorm": False,
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_falcon.FalconConfig"},
    "bos_token_id": 11,
    "eos_token_id": 11,
    "hidden_dropout": 0.0,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "falcon",
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 65024,
}

PUBLISHED: dict[str, tuple[int, str, dict[str, Any]]] = {
    "openai-community/gpt2": (
        124_439_808,
        "ff_activation=gelu_tanh",
        GPT
        | {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "n_ctx": 1024,
            "n_embd": 768,
            "n_head": 12,
            "n_layer": 12,
            "n_positions": 1024,
            "vocab_size": 50257,
        },
    ),
    "EleutherAI/gpt-j-6b": (
        6_050_882_784,
        "(a & f(shared_norm))*28",
        GPT
        | {
            "architectures": ["GPTJForCausalLM"],
            "gradient_checkpointing": False,
            "model_type": "gptj",
            "n_embd": 4096,
            "n_head": 16,
            "n_inner": None,
            "n_layer": 28,
            "n_positions": 2048,
            "rotary": True,
            "rotary_dim": 64,
            "scale_attn_weights": True,
            "tie_word_embeddings": False,
            "tokenizer_class": "GPT2Tokenizer",
            "use_cache": True,
            "vocab_size": 50400,
        },
    ),
    "EleutherAI/pythia-160m": (
        162_322_944,
        "(a & f)*12",
        NEOX
        | {
            "hidden_act": "gelu",
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_attention_heads": 12,
            "num_hidden_layers": 12,
            "use_parallel_residual": True,
            "vocab_size": 50304,
        },
    ),
    "EleutherAI/gpt-neox-20b": (
        20_554_567_680,
        "rotary_emb_dim=24",
        NEOX
        | {
            "attention_probs_dropout_prob": 0,
            "hidden_act": "gelu_fast",
            "hidden_dropout_prob": 0,
            "hidden_size": 6144,
            "intermediate_size": 24576,
            "num_attention_heads": 64,
            "num_hidden_layers": 44,
            "vocab_size": 50432,
        },
    ),
    "bigscience/bloom": (
        176_247_271_424,
        "post_emb_norm=true",
        {
            "apply_residual_connection_post_layernorm": False,
            "architectures": ["BloomForCausalLM"],
            "attention_dropout": 0.0,
            "attention_softmax_in_fp32": True,
            "bias_dropout_fusion": True,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_dropout": 0.0,
            "initializer_range": 0.02,
            "layer_norm_epsilon": 1e-05,
            "masked_softmax_fusion": True,
            "model_type": "bloom",
            "n_embed": 14336,
            "n_layer": 70,
            "num_attention_heads": 112,
            "pad_token_id": 3,
            "pretraining_tp": 4,
            "slow_but_exact": False,
            "unk_token_id": 0,
            "use_cache": True,
            "vocab_size": 250880,
        },
    ),
    "mosaicml/mpt-7b": (
        6_649_286_656,
        "norm_bias=false",
        {
            "architectures": ["MPTForCausalLM"],
            "attn_config": {
                "alibi": True,
                "alibi_bias_max": 8,
                "attn_impl": "torch",
                "attn_pdrop": 0,
                "attn_type": "multihead_attention",
                "attn_uses_sequence_id": False,
                "clip_qkv": None,
                "prefix_lm": False,
                "qk_ln": False,
                "softmax_scale": None,
            },
            "d_model": 4096,
            "emb_pdrop": 0,
            "embedding_fraction": 1.0,
            "expansion_ratio": 4,
            "init_config": {"emb_init_std": None, "name": "kaiming_normal_", "verbose": 0},
            "init_device": "cpu",
            "learned_pos_emb": True,
            "logit_scale": None,
            "max_seq_len": 2048,
            "model_type": "mpt",
            "n_heads": 32,
            "n_layers": 32,
            "no_bias": True,
            "norm_type": "low_precision_layernorm",
            "resid_pdrop": 0,
            "tokenizer_name": "EleutherAI/gpt-neox-20b",
            "torch_dtype": "bfloat16",
            "use_cache": False,
            "verbose": 0,
            "vocab_size": 50432,
        },
    ),
    "tiiuae/falcon-7b": (
        6_921_720_704,
        "(a & f(shared_norm))*32",
        FALCON
        | {
            "alibi": False,
            "bias": False,
            "hidden_size": 4544,
            "multi_query": True,
            "new_decoder_architecture": False,
            "num_attention_heads": 71,
            "num_hidden_layers": 32,
            "parallel_attn": True,
        },
    ),
    "tiiuae/falcon-rw-1b": (
        1_311_625_216,
        "alibi_scale=0.125",
        FALCON
        | {
            "alibi": True,
            "bias": True,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_size": 2048,
            "multi_query": False,
            "new_decoder_architecture": False,
            "num_attention_heads": 32,
            "num_hidden_layers": 24,
            "parallel_attn": False,
            "vocab_size": 50304,
        },
    ),
    "facebook/opt-125m": (
        125_239_296,
        "pos_offset=2",
        {
            "_remove_final_layer_norm": False,
            "activation_dropout": 0.0,
            "activation_function": "relu",
            "architectures": ["OPTForCausalLM"],
            "attention_dropout": 0.0,
            "bos_token_id": 2,
            "do_layer_norm_before": True,
            "dropout": 0.1,
            "eos_token_id": 2,
            "ffn_dim": 3072,
            "hidden_size": 768,
            "init_std": 0.02,
            "layerdrop": 0.0,
            "max_position_embeddings": 2048,
            "model_type": "opt",
            "num_attention_heads": 12,
            "num_hidden_layers": 12,
            "pad_token_id": 1,
            "prefix": "</s>",
            "torch_dtype": "float16",
            "use_cache": True,
            "vocab_size": 50272,
            "word_embed_proj_dim": 768,
        },
    ),
    "microsoft/phi-2": (
        2_779_683_840,
        "rotary_emb_dim=32",
        {
            "architectures": ["PhiForCausalLM"],
            "attention_dropout": 0.0,
            "bos_token_id": 50256,
            "embd_pdrop": 0.0,
            "eos_token_id": 50256,
            "hidden_act": "gelu_new",
            "hidden_size": 2560,
            "initializer_range": 0.02,
            "intermediate_size": 10240,
            "layer_norm_eps": 1e-05,
            "max_position_embeddings": 2048,
            "model_type": "phi",
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 32,
            "partial_rotary_factor": 0.4,
            "qk_layernorm": False,
            "resid_pdrop": 0.1,
            "rope_scaling": None,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "torch_dtype": "float16",
            "use_cache": True,
            "vocab_size": 51200,
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_file_is_read_and_has_as_many_parameters(name: str) -> None:
    parameters, words, config = PUBLISHED[name]
    reading = read(config)
    assert words in reading.texts[""]
    assert reading.graphs()[""].parameters() == parameters


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "openai-community/gpt2": ({"add_cross_attention": True}, "add_cross_attention=True: blocks of cross-attention"),
    "bigscience/bloom": ({"n_inner": 100}, "n_inner=100: hidden features are other than four times the width"),
    "mosaicml/mpt-7b": ({"attn_config": {"clip_qkv": 8.0}}, "attn_config.clip_qkv=8.0: queries, keys and values"),
    "tiiuae/falcon-7b": ({"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn=2: no Falcon is like this"),
    "facebook/opt-125m": ({"word_embed_proj_dim": 512}, "word_embed_proj_dim=512: tokens are projected before"),
    "microsoft/phi-2": ({"hidden_act": "mish"}, "hidden_act='mish': there is no such activation here"),
    "EleutherAI/pythia-160m": ({"rotary_percent": 0.5}, "rotary_percent=0.5; did you mean 'rotary_pct'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_there_is_no_option_for_is_refused(name: str) -> None:
    changed, words = REFUSED[name]
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        read(PUBLISHED[name][2] | changed)
