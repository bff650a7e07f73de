"""LLaMA: heads and groups, head sizes of their own, odd sizes, biases, tied logits, every scaling of rotary positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import xt_blocks
from blockdsl import UserError
from blockdsl.hugging_face import read
from xt_blocks.positions import Rotary

from .agreement import agreement, check, difference, randomised

SMALL: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 27,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
}
LLAMA_3: dict[str, Any] = {
    **{"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0},
    **{"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16},
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12, "rope_theta": 100.0}
CASES: dict[str, dict[str, Any]] = {
    "grouped": {"num_key_value_heads": 2, "rms_norm_eps": 1e-5},
    "head_dim": {"head_dim": 6, "num_hidden_layers": 3, "hidden_act": "gelu"},
    "biases, tied": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 70.0}, "num_key_value_heads": 1},
    "linear": {"rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 10000.0}, "head_dim": 6},
    "llama3": {"rope_parameters": LLAMA_3, "hidden_size": 32, "num_key_value_heads": 2},
    "yarn": {"rope_parameters": YARN, "hidden_size": 32},
    "yarn, attention factor": {"rope_parameters": YARN | {"attention_factor": 0.8, "beta_fast": 4}, "hidden_size": 32},
    "yarn, two scales": {"rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 0.7}, "hidden_size": 32},
}


def peer(case: str) -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_dynamic_agrees_past_the_original_length() -> None:
    """Theirs keeps the frequencies of the longest text that it has seen, and old keys; here it forgets both."""
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 50.0}
    theirs = randomised(
        LlamaForCausalLM(LlamaConfig(**SMALL | {"max_position_embeddings": 8, "rope_parameters": rope}))
    )
    theirs = theirs.eval()

    def forget(module: Any, _: Any) -> None:
        module.max_seq_len_cached, module.inv_freq = module.original_max_seq_len, module.original_inv_freq

    theirs.model.rotary_emb.register_forward_pre_hook(forget)
    ours = xt_blocks.from_hugging_face(theirs)
    assert ours.max_seq_len == 32
    tokens = torch.randint(0, 19, (2, 31))
    with torch.no_grad():
        for length in (3, 8, 9, 20, 31):
            assert difference(ours(tokens[:, :length]), theirs(tokens[:, :length]).logits) < 1e-5
    options = {"max_new_tokens": 20, "do_sample": False, "use_cache": False, "pad_token_id": 0, "eos_token_id": None}
    expected = theirs.generate(tokens[:, :4], **options)[:, 4:]
    for cache_kv in (True, False):
        found = xt_blocks.AutoregressiveWrapper(ours).generate(tokens[:, :4], 20, temperature=0.0, cache_kv=cache_kv)
        assert torch.equal(found, expected)


ROPES: dict[str, dict[str, Any]] = {
    "linear": {"factor": 3.0},
    "dynamic": {"factor": 3.0},
    "llama3": {name: value for name, value in LLAMA_3.items() if name not in ("rope_type", "rope_theta")},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
    "longrope": {
        "short_factor": [1.0, 1.5, 2.0, 4.0],
        "long_factor": [2.0, 3.0, 5.0, 9.0],
        "original_max_position_embeddings": 16,
    },
}


@pytest.mark.parametrize("kind", ROPES)
def test_frequencies_are_those_of_transformers(kind: str) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {"rope_type": kind, "rope_theta": 300.0, **ROPES[kind]}
    config = LlamaConfig(**SMALL | {"hidden_size": 32, "rope_parameters": rope})
    settings = read(config.to_dict() | {"architectures": ["LlamaForCausalLM"]}).parts[""].settings
    own = {name.removeprefix("rotary_"): value for name, value in settings.items() if name.startswith("rotary_")}
    rotary = Rotary(own.pop("emb_dim"), **{name: value for name, value in own.items() if name != "pos_emb"})
    for length in (5, 16, 17, 40, 100):
        expected, gain = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=length)
        torch.testing.assert_close(rotary.frequencies(length).float(), expected)
        cos = rotary.rotation(torch.arange(length)).cos
        assert float(cos[0, 0]) == pytest.approx(gain)


@pytest.mark.parametrize("kind", ["linear", "llama3", "yarn"])
def test_older_files_say_the_same(kind: str) -> None:
    plain = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **SMALL}
    new = read(plain | {"rope_parameters": {"rope_type": kind, "rope_theta": 300.0, **ROPES[kind]}})
    old = read(plain | {"rope_theta": 300.0, "rope_scaling": {"type": kind, **ROPES[kind]}})
    assert old.texts == new.texts
    assert f"rotary_scaling={kind}" in new.texts[""]


@pytest.mark.parametrize(
    ("rope", "words"),
    [
        ({"rope_type": "mrope"}, "rope_scaling.rope_type='mrope': rotary positions are scaled in another way"),
        ({"rope_type": "linear"}, "the configuration has no rope_scaling.factor"),
        ({"rope_type": "linear", "factor": 2.0, "bend": 3}, "rope_scaling.bend=3"),
        (
            {"rope_type": "yarn", "factor": 2.0, "truncate": "no"},
            "rope_scaling.truncate must be true or false, not 'no'",
        ),
    ],
)
def test_what_is_not_known_is_refused(rope: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        read({"model_type": "llama", "architectures": ["LlamaForCausalLM"], **SMALL, "rope_scaling": rope})
    assert words in str(caught.value)
