"""The zoo: every entry has the parameters that were published, says no more than it must, and is found by its name."""

from __future__ import annotations

import re

import pytest

import blockdsl
from blockdsl import UserError, zoo
from blockdsl.registry.streams import pair_table

from .published import PARAMETERS

# Those whose cards have a rounded number alone, by hand from the configuration: layers, embedding, last norm.


def opt(d: int, depth: int) -> int:
    """4 d² + 4 d of attention, 8 d² + 5 d of feedforward and two norms a layer; tokens and positions with two rows more."""
    return depth * (12 * d**2 + 13 * d) + (50272 + 2048 + 2) * d + 2 * d


def palm(d: int, heads: int, depth: int) -> int:
    """One head of keys and of values, a gated feedforward of 4 d and one gain a layer."""
    return depth * (d * 256 * (2 * heads + 2) + 3 * 4 * d**2 + d) + 256_000 * d + d


def gemma3(d: int, heads: int, kv: int, dim_head: int, inner: int, depth: int) -> int:
    """Four gains a layer, and those of a query's and a key's head."""
    return depth * (d * dim_head * 2 * (heads + kv) + 3 * d * inner + 4 * d + 2 * dim_head) + 262_208 * d + d


def recurrentgemma(d: int, heads: int, inner: int, attentions: int) -> int:
    """Two recurrent layers for each of attention and two at the end: linear layers with biases, a convolution of four
    tokens, gates of `heads` blocks, decays; attention with one key head; a gated feedforward with biases; two gains."""
    recurrent = 3 * d**2 + 3 * d + 5 * d + 2 * (d**2 // heads + d) + d
    attention = 2 * d**2 + 2 * 256 * d + d
    rest = 3 * d * inner + 2 * inner + d + 2 * d
    return (2 * attentions + 2) * (recurrent + rest) + attentions * (attention + rest) + 256_000 * d + d


def state_space(d: int, inner: int, groups: int = 1, gain: int = 1, state: int = 128) -> int:
    """Mamba-2 with heads of 64 features: both linear layers, a convolution of four tokens with a bias, three numbers a
    head, the gated norm's gain; `gain` norms of the stream."""
    written, heads = 2 * groups * state, inner // 64
    return d * (2 * inner + written + heads + inner) + 5 * (inner + written) + 3 * heads + inner + gain * d


def mamba2(d: int, depth: int) -> int:
    return depth * state_space(d, 2 * d) + 50288 * d + d


def granite4(d: int, keys: int, feedforward: int) -> int:
    """36 layers of Mamba-2 and 4 of attention, a feedforward in each, which may be experts; the embedding is tied."""
    return 36 * state_space(d, 2 * d) + 4 * (2 * d**2 + 2 * d * keys + d) + 40 * (feedforward + d) + 100352 * d + d


def zamba2(d: int, depth: int, state: int, shared: int, uses: int, adapters: int) -> int:
    """Layers of Mamba-2; shared blocks, whose attention reads 2·d features, with norms of both; of each use a linear
    layer and a term of rank 128 of the feedforward's gate and hidden features, and `adapters` of attention's 2·d."""
    block = (3 * 2 * d + d) * 2 * d + 3 * 4 * d * d + 2 * d + d
    use = d * d + 128 * (d + 8 * d) + adapters * 128 * (2 * d + 2 * d)
    return depth * state_space(d, 2 * d, state=state) + shared * block + uses * use + 32000 * d + d


def clip_vision(d: int, patch: int, depth: int, out: int) -> int:
    """As a layer of OPT; patches without a bias, the class token, positions, a norm before and after, the projection."""
    places = (224 // patch) ** 2 + 1
    return depth * (12 * d**2 + 13 * d) + 3 * patch**2 * d + d + places * d + 4 * d + d * out


BY_HAND = {
    "mpt-30b": 48 * (12 * 7168**2 + 2 * 7168) + 50432 * 7168 + 7168,
    "opt-13b": opt(5120, 40),
    "opt-30b": opt(7168, 48),
    "opt-66b": opt(9216, 64),
    "palm-8b": palm(4096, 16, 32),
    "palm-62b": palm(8192, 32, 64),
    "palm-540b": palm(18432, 48, 118),
    "gemma3-4b": gemma3(2560, 8, 4, 256, 10240, 34),
    "gemma3-12b": gemma3(3840, 16, 8, 256, 15360, 48),
    "gemma3-27b": gemma3(5376, 32, 16, 128, 21504, 62),
    "recurrentgemma-2b": recurrentgemma(2560, 10, 7680, 8),
    "recurrentgemma-9b": recurrentgemma(4096, 16, 12288, 12),
    **{f"mamba2-{n}": mamba2(*of) for n, of in {"130m": (768, 24), "370m": (1024, 48), "780m": (1536, 48)}.items()},
    **{f"mamba2-{n}": mamba2(*of) for n, of in {"1.3b": (2048, 48), "2.7b": (2560, 64)}.items()},
    # a block a layer, each with a gain: 24 of Mamba-2, 4 of attention, 24 of two linear layers
    "nemotron_h-8b": 24 * state_space(4096, 8192, groups=8)
    + 4 * (2 * 4096**2 + 2 * 4096 * 1024 + 4096)
    + 24 * (2 * 4096 * 21504 + 4096)
    + 2 * 131072 * 4096
    + 4096,
    "bamba-9b": 29 * state_space(4096, 8192)
    + 3 * (2 * 4096**2 + 2 * 4096 * 1024 + 4096)
    + 32 * (3 * 4096 * 14336 + 4096)
    + 2 * 128256 * 4096
    + 4096,
    # one norm of both branches, and no gated norm
    "falcon_h1-0.5b": 36 * (state_space(1024, 1536) - 1536 + 1024 * 64 * 12 + 512 * 1024 + 3 * 1024 * 2048 + 1024)
    + 2 * 32784 * 1024
    + 1024,
    # 23 of Mamba-2, 6 of attention, 23 of experts: each two linear layers, as the shared one of twice their features
    "nemotron3-nano-30b-a3b": 23 * state_space(2688, 4096, groups=8)
    + 6 * (2 * 2688 * 32 * 128 + 2 * 2688 * 2 * 128 + 2688)
    + 23 * (130 * 2 * 2688 * 1856 + 129 * 2688)
    + 2 * 131072 * 2688
    + 2688,
    # the paper says 2.7 and 1.2 thousand million
    "zamba2-2.7b": zamba2(2560, 54, 64, shared=2, uses=9, adapters=0),
    "zamba2-1.2b": zamba2(2048, 38, 128, shared=1, uses=6, adapters=3),
    "granite4-h-micro": granite4(2048, 512, 3 * 2048 * 8192),
    "granite4-h-tiny": granite4(1536, 512, 3 * 1536 * (64 * 512 + 1024) + 64 * 1536),
    "granite4-h-small": granite4(4096, 1024, 3 * 4096 * (72 * 768 + 1536) + 72 * 4096),
    # layers of 256 features; tokens, positions, types and a norm of 128; the projection between
    "electra-small": 12 * (12 * 256**2 + 13 * 256) + (30522 + 512 + 2 + 2) * 128 + 129 * 256,
    # gains alone, none before the first attention; the head's linear layer and gain, a bias of each logit
    "modernbert-large": 28 * (4 * 1024**2 + 3 * 1024 * 2624 + 2 * 1024) + (50368 + 1) * 1024 + 1024**2 + 1024 + 50368,
    "clip_vision-base-16": clip_vision(768, 16, 12, 512),
    "clip_vision-large-14": clip_vision(1024, 14, 24, 768),
    # patches, positions and a norm; attention of one learned query, a norm and a feedforward, as a layer without a norm
    "siglip_vision-large-256": 24 * (12 * 1024**2 + 13 * 1024)
    + (3 * 256 + 1 + 256 + 2) * 1024
    + 1024
    + (12 * 1024**2 + 11 * 1024),
}


def test_every_number_is_of_an_entry() -> None:
    assert sorted([*PARAMETERS, *BY_HAND]) == sorted(zoo.names())


@pytest.mark.parametrize("name", zoo.names())
def test_parameters(name: str) -> None:
    assert zoo.entry(name).graph().parameters() == {**PARAMETERS, **BY_HAND}[name]


@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_no_entry_says_more_than_it_must(name: str) -> None:
    known, entry = pair_table(), zoo.entry(name)
    patterns = [blockdsl.parse(entry(size).text) for size in entry.sizes]
    said = [{n for n, value in p.settings.items() if value == known[n].default} for p in patterns]
    assert set.intersection(*said) == set(), "the default says so"
    assert {pattern.unused_definitions for pattern in patterns} == {()}
    assert max(map(len, entry.text.splitlines())) <= 120


@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_an_entry_says_where_it_is_from(name: str) -> None:
    entry = zoo.entry(name)
    assert re.fullmatch(r"arXiv:\d{4}\.\d{5}|[^,]+, 20\d\d", entry.source)
    assert repr(entry) == f"<{name} {entry.sizes[0]}: {entry.source}>"
    assert entry == getattr(zoo, name) == zoo.entry(f"{name}-{entry.size}") == entry(entry.size)
    assert str(entry) == entry.text


def test_as_it_is_used() -> None:
    assert zoo.gpt2.sizes == ("small", "medium", "large", "xl")
    assert zoo.gpt2.text == (
        "set dim=768, heads=12, causal, attn_qkv_bias, attn_out_bias, ff_activation=gelu_tanh;\n"
        "set num_tokens=50257, max_seq_len=1024, tie_embedding, logits_scale=1;\n(a f)*12"
    )
    assert blockdsl.compile(zoo.gpt2.text) == zoo.gpt2.graph()
    assert zoo.gpt2("XL").graph().dim == 1600
    assert zoo.llama3("70b").graph(max_seq_len=64).model_options()["max_seq_len"] == 64
    assert [*zoo.whisper.graph().streams()] == ["encoder", "decoder"]
    assert zoo.t5.text.endswith("\n(a f)*6 => (a c f)*6")
    assert zoo.bart._repr_svg_().startswith("<svg")
    assert zoo.qwen2._repr_svg_().startswith("<svg")
    assert {"gpt2", "llama3", "entry", "names"} <= {*dir(zoo)}
    assert blockdsl.zoo is zoo


def test_signs_in_a_name_are_alike() -> None:
    for name in ("pythia-1.4b", "pythia_1_4b", "Pythia-1.4B"):
        assert (zoo.entry(name).name, zoo.entry(name).size) == ("pythia", "1.4b")
    assert zoo.entry("qwen2.5").name == "qwen2_5"
    assert zoo.entry("qwen2.5-32b").size == "32b"
    assert zoo.entry("stablelm-2-1.6b").size == "2-1.6b"


def test_names_that_there_are_not() -> None:
    with pytest.raises(UserError, match=r"^the zoo has no 'lama2'; did you mean 'llama2'\?$"):
        zoo.entry("lama2")
    with pytest.raises(UserError, match=r"^the zoo has no 'llama2-7c'; did you mean 'llama2-7b'\?$"):
        zoo.entry("llama2-7c")
    with pytest.raises(UserError, match=r"^the zoo has no ''; there are gpt2, "):
        zoo.entry("")
    with pytest.raises(UserError, match=r"^llama2 has no size '8b'; there are 7b, 13b, 70b$"):
        zoo.llama2("8b")
    with pytest.raises(UserError, match=r"^gpt2 has no size 'smal'; did you mean 'small'\?$"):
        zoo.gpt2("smal")
    with pytest.raises(AttributeError, match=r"^the zoo has no 'gpt_2'; did you mean 'gpt2'\?$"):
        _ = zoo.gpt_2


@pytest.mark.parametrize(
    ("name", "billions", "embedding"),
    [
        ("mixtral-8x7b", 12.9, 0),
        ("mixtral-8x22b", 39.1, 0),
        ("qwen3_moe-30b_a3b", 3.35, 0),
        ("qwen3_moe-235b_a22b", 22.2, 0),
        ("gpt_oss-20b", 3.61, 201_088 * 2880),  # its card leaves the embedding out
        ("gpt_oss-120b", 5.13, 201_088 * 2880),
        ("deepseek_v3-671b", 37.5, 0),
    ],
)
def test_what_a_token_uses_is_what_cards_say(name: str, billions: float, embedding: int) -> None:
    assert zoo.entry(name).graph().parameters(active=True) - embedding == pytest.approx(billions * 1e9, rel=0.005)
