"""Published configurations of encoder-decoders, as their files have them, and their number of parameters."""

from __future__ import annotations

from typing import Any

import pytest

from blockdsl import UserError, parse, parse_settings, zoo
from blockdsl.hugging_face import read

T5: dict[str, Any] = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_kv": 64,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "n_positions": 512,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "task_specific_params": {"summarization": {"num_beams": 4}},
    "vocab_size": 32128,
}
BART: dict[str, Any] = {
    "activation_dropout": 0.1,
    "activation_function": "gelu",
    "add_final_layer_norm": False,
    "attention_dropout": 0.1,
    "bos_token_id": 0,
    "classif_dropout": 0.0,
    "classifier_dropout": 0.0,
    "decoder_layerdrop": 0.0,
    "decoder_start_token_id": 2,
    "dropout": 0.1,
    "early_stopping": True,
    "encoder_layerdrop": 0.0,
    "eos_token_id": 2,
    "forced_eos_token_id": 2,
    "gradient_checkpointing": False,
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "max_position_embeddings": 1024,
    "model_type": "bart",
    "no_repeat_ngram_size": 3,
    "normalize_before": False,
    "num_beams": 4,
    "pad_token_id": 1,
    "scale_embedding": False,
    "use_cache": True,
}
WHISPER: dict[str, Any] = {
    "activation_dropout": 0.0,
    "activation_function": "gelu",
    "architectures": ["WhisperForConditionalGeneration"],
    "attention_dropout": 0.0,
    "begin_suppress_tokens": [220, 50257],
    "bos_token_id": 50257,
    "decoder_layerdrop": 0.0,
    "decoder_start_token_id": 50258,
    "dropout": 0.0,
    "encoder_layerdrop": 0.0,
    "eos_token_id": 50257,
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "max_length": 448,
    "max_source_positions": 1500,
    "max_target_positions": 448,
    "model_type": "whisper",
    "pad_token_id": 50257,
    "scale_embedding": False,
    "suppress_tokens": [1, 2, 7, 8, 9, 10, 14, 25],
    "torch_dtype": "float32",
    "use_cache": True,
}


def sizes(dim: int, heads: int, inner: int, layers: int) -> dict[str, int]:
    """Of both sides of BART and Whisper."""
    own = {"attention_heads": heads, "ffn_dim": inner, "layers": layers}
    both = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in own.items()}
    return {"d_model": dim, "num_hidden_layers": layers, **both}


PUBLISHED: dict[str, tuple[int, list[str], dict[str, Any]]] = {
    "t5-small": (
        60_506_624,
        ["attn_qk_scale=1.0", "rel_pos_scale=1.0", "ff_activation=relu", "tie_embedding=true"],
        T5 | {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
    ),
    "t5-11b": (
        11_307_321_344,
        ["attn_dim_head=128"],
        T5 | {"d_model": 1024, "d_ff": 65536, "d_kv": 128, "num_layers": 24, "num_heads": 128},
    ),
    "google/flan-t5-small": (
        76_961_152,
        ["ff_glu=true", "ff_activation=gelu_tanh", "logits_bias=false"],
        T5
        | {"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6}
        | {"feed_forward_proj": "gated-gelu", "relative_attention_max_distance": 128, "tie_word_embeddings": False},
    ),
    "facebook/bart-base": (
        139_420_416,
        ["pre_norm=false", "pos_offset=2", "post_emb_norm=true", "logits_scale=1.0"],
        BART
        | {"architectures": ["BartModel"], "vocab_size": 50265, "normalize_embedding": True, "add_bias_logits": False}
        | sizes(768, 12, 3072, 6),
    ),
    "facebook/bart-large-cnn": (
        406_290_432,
        ["attn_qkv_bias=true", "attn_out_bias=true"],
        BART
        | {"architectures": ["BartForConditionalGeneration"], "vocab_size": 50264, "_num_labels": 3, "prefix": " "}
        | {"forced_bos_token_id": 0, "length_penalty": 2.0, "max_length": 142, "min_length": 56}
        | sizes(1024, 16, 4096, 12),
    ),
    "facebook/mbart-large-50": (
        610_879_488,
        ["embed_scale=32.0"],
        BART
        | {"architectures": ["MBartForConditionalGeneration"], "model_type": "mbart", "vocab_size": 250054}
        | {"normalize_before": True, "add_final_layer_norm": True, "scale_embedding": True, "normalize_embedding": True}
        | {"static_position_embeddings": False, "tokenizer_class": "MBart50Tokenizer"}
        | sizes(1024, 16, 4096, 12),
    ),
    "openai/whisper-tiny": (
        37_760_640,
        ["attn_k_bias=false", "max_seq_len=448"],
        WHISPER
        | {"num_mel_bins": 80, "vocab_size": 51865, "forced_decoder_ids": [[1, 50259], [2, 50359], [3, 50363]]}
        | sizes(384, 6, 1536, 4),
    ),
    "openai/whisper-large-v3": (
        1_543_490_560,
        ["tie_embedding=true"],
        WHISPER
        | {"num_mel_bins": 128, "vocab_size": 51866, "median_filter_width": 7, "apply_spec_augment": False}
        | {"mask_time_prob": 0.05, "mask_feature_prob": 0.0, "classifier_proj_size": 256}
        | sizes(1280, 20, 5120, 32),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_file_is_read_and_has_as_many_parameters(name: str) -> None:
    parameters, said, config = PUBLISHED[name]
    reading = read(config)
    settings = parse(reading.texts[""]).decoder.settings
    for words in said:
        assert parse_settings(words).items() <= settings.items(), words
    assert reading.graphs()[""].parameters() == parameters


def test_what_they_generate_with_is_read() -> None:
    arguments = {name: read(config).parts["decoder"].arguments for name, (_, _, config) in PUBLISHED.items()}
    t5 = {"pad_value": 0, "start_token": 0, "generation": {"eos_token": 1}, "tie_token_emb": True}
    assert arguments["t5-small"] == t5
    assert arguments["facebook/bart-large-cnn"]["generation"]["forced_tokens"] == {0: 0, -1: 2}
    whisper = arguments["openai/whisper-tiny"]
    assert whisper["start_token"] == 50258
    assert whisper["generation"]["forced_tokens"] == {0: 50259, 1: 50359, 2: 50363}
    assert whisper["generation"]["begin_suppress_tokens"] == [220, 50257]


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("t5-small", "feed_forward_proj", "gated-mish", "feed_forward_proj='mish': there is no such activation here"),
        ("t5-small", "is_decoder", True, "is_decoder=True: a decoder alone, for which there is no option here"),
        ("facebook/bart-base", "normalize_before", True, "normalize_before=True: the other order of norms"),
        ("facebook/bart-base", "normalize_embedding", False, "normalize_embedding=False: no norm of the embedding"),
        ("openai/whisper-tiny", "tie_word_embeddings", False, "tie_word_embeddings=False: logits of their own"),
        ("openai/whisper-tiny", "decoder_layer", 3, "decoder_layer=3; did you mean 'decoder_layers'?"),
    ],
)
def test_what_there_is_no_option_for_is_refused(name: str, key: str, value: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        read(PUBLISHED[name][2] | {key: value}).graphs()
    assert message in str(error.value)


def test_a_text_says_only_what_is_not_meant_anyway() -> None:
    assert read(PUBLISHED["openai/whisper-tiny"][2]).texts[""] == (
        "set dim=384, tie_embedding, logits_scale=1, heads=6, attn_qkv_bias, attn_k_bias=false, attn_out_bias, "
        "enc_max_seq_len=1500, enc_dim_in=80, enc_conv_stem, dec_num_tokens=51865, dec_max_seq_len=448; "
        "(a f)*4 => (a c f)*4"
    )


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("t5-small", "t5-small"),
        ("t5-11b", "t5-11b"),
        ("t5_1_1-small", "google/flan-t5-small"),
        ("bart-base", "facebook/bart-base"),
        ("whisper-tiny", "openai/whisper-tiny"),
    ],
)
def test_the_zoo_says_the_same(entry: str, name: str) -> None:
    found = zoo.entry(entry).graph().diff(read(PUBLISHED[name][2]).graphs()[""])
    assert not found, found.to_text()
