"""Keys that a published configuration rarely has, or lacks, and what transformers makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AlbertConfig, AlbertForMaskedLM, AutoConfig, GemmaConfig, GemmaForCausalLM, T5Config, T5Model

import xt_blocks
from blockdsl.errors import UserError
from blockdsl.hugging_face import read

from .agreement import agreement, check, randomised

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 19,
}
T5 = {"d_model": 12, "d_kv": 4, "d_ff": 20, "num_layers": 2, "num_heads": 3, "vocab_size": 19}
ALBERT = {
    "vocab_size": 19,
    "embedding_size": 6,
    "hidden_size": 12,
    "num_attention_heads": 3,
    "intermediate_size": 27,
    "num_hidden_layers": 2,
    "max_position_embeddings": 40,
}


def test_an_activation_of_t5_beside_its_projection() -> None:
    check(agreement(T5Model(T5Config(**T5, feed_forward_proj="relu", dense_act_fn="silu"))))
    with pytest.raises(UserError, match="feed_forward_proj='relu' says otherwise"):
        read({**T5Config(**T5).to_dict(), "is_gated_act": True})


def test_albert_without_an_activation(tmp_path: Path) -> None:
    theirs = randomised(AlbertForMaskedLM(AlbertConfig(**ALBERT))).eval()
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["hidden_act"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokens = torch.randint(0, 19, (2, 7))
    found, expected = xt_blocks.from_hugging_face(tmp_path)(tokens), theirs(tokens).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**AlbertConfig(**ALBERT).to_dict(), "is_decoder": True}, "no causal ALBERT"),
        ({**LLAMA, "partial_rotary_factor": 0.5}, "rotates whole heads of this family"),
        ({**LLAMA, "rope_parameters": {"partial_rotary_factor": 0.5}}, "rotates whole heads of this family"),
        ({**LLAMA, "dropout_scaling": 5}, "dropout_scaling=5"),
        (
            {**GemmaConfig(hidden_act="gelu_pytorch_tanh").to_dict(), "hidden_activation": "relu"},
            "hidden_act='gelu_pytorch_tanh' says otherwise",
        ),
    ],
)
def test_what_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read(config)


def test_what_is_warned_of() -> None:
    falcon = {"model_type": "falcon", "alibi": True, "bias": True, "multi_query": False, "parallel_attn": False}
    with pytest.warns(UserWarning, match="rounds Falcon's ALiBi to bfloat16"):
        read({**falcon, "hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 1, "vocab_size": 9})
    bart = {"model_type": "bart", "d_model": 16, "no_repeat_ngram_size": 3, "min_length": 0}
    with pytest.warns(UserWarning, match="not do what the configuration says: no_repeat_ngram_size=3$"):
        read(bart)


def test_gemma_scales_its_embedding_in_the_type_of_the_weights() -> None:
    sizes = {"hidden_size": 48, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    theirs = GemmaForCausalLM(GemmaConfig(**sizes, num_key_value_heads=1, head_dim=8, vocab_size=19)).bfloat16().eval()
    ours = xt_blocks.from_hugging_face(theirs)
    tokens = torch.randint(0, 19, (2, 7))
    expected = theirs(tokens, output_hidden_states=True).hidden_states[0]
    _, seen = ours(tokens, return_embeddings=True, return_intermediates=True)
    assert torch.equal(seen.streams["a0"], expected)


def test_a_model_of_two_types_is_written_as_the_wider_one(tmp_path: Path) -> None:
    ours = xt_blocks.lower(read(LLAMA).graphs()[""])
    ours.attn_layers.blocks["a0"].layer.to_qkv.bfloat16()
    xt_blocks.to_hugging_face(ours, tmp_path, config=LLAMA)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {
        torch.float32,
        torch.bfloat16,
    }


@pytest.mark.parametrize(
    "model_type", ["cohere", "gemma", "gemma2", "gemma3_text", "llama", "mistral", "olmo", "stablelm"]
)
def test_a_length_that_is_left_out_is_that_of_transformers(model_type: str) -> None:
    config = AutoConfig.for_model(model_type).to_dict()
    length = config.pop("max_position_embeddings")
    assert f"max_seq_len={length}," in read(config).texts[""]
