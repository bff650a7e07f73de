"""What stands above a picture is said in words of the field, and nothing is said that says nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest

import blockdsl
from blockdsl import BlockGraph, zoo
from blockdsl.draw.widths import broken
from blockdsl.draw.words.captions import Captions
from blockdsl.draw.words.header import head_of
from blockdsl.reference import needs
from blockdsl.registry.kinds import kind_of
from blockdsl.registry.options import Option, in_digits
from blockdsl.registry.settings import STACK_SETTINGS

from ..built_in import BUILT_IN
from .reading import read
from .test_every_option import values

SETTINGS = {
    option.setting: (kind, option) for kind in BUILT_IN for option in kind_of(kind).all_options() if option.setting
}
OF_STACK = [(option.name, ("a", option)) for option in STACK_SETTINGS if option.name not in SETTINGS]
EVERY = dict([*SETTINGS.items(), *OF_STACK])
TELL_ZERO = {"attn_value_embed", "attn_qk_norm_scale"}  # the number of a table; all scores alike
TOKENS = {"num_tokens": 300, "max_seq_len": 32}


def above(graph: BlockGraph) -> dict[str, str]:
    """What a head says → as a pattern has it, of settings; facts are there as they are."""
    head = head_of(Captions(graph))
    return dict.fromkeys((*head.sizes, *head.facts, *head.blocks), "") | head.settings


def models(setting: str, kind: str, option: Option) -> list[tuple[Any, BlockGraph]]:
    found = []
    own = {"dim": 512} | needs(setting, option.area) | ({"causal": True} if kind_of(kind).causal_only else {})
    for value in [*values(option), *(number for number in (0, 1) if option.fault(number) is None)]:
        try:
            found.append((value, blockdsl.compile(f"({kind} & f)*2 {kind}", **{**own, setting: value})))
        except blockdsl.UserError:  # none without what it goes with
            continue
    return found


@pytest.mark.parametrize("setting", EVERY)
def test_a_setting_is_told_in_words(setting: str) -> None:
    kind, option = EVERY[setting]
    for value, graph in models(setting, kind, option):
        for said in above(graph):
            assert "_" not in said, (value, said)
            assert "=" not in said, (value, said)
            assert not re.search(r"× 1$|× 1,| 0$|\(\)|none|null", said) or setting in TELL_ZERO, (value, said)


def test_those_that_a_pattern_sets_are_in_the_tooltip() -> None:
    svg = blockdsl.compile("(a f)*2", dim=64, attn_qkv_bias=True, attn_softcap=50, ff_no_bias=True).to_svg()
    (tip,) = re.findall('<g class="head"><title>(.*?)</title>', svg)
    assert tip == "attn_qkv_bias, attn_softcap=50.0, ff_no_bias=true".replace("50.0", "50").replace("=true", "")
    said = " · ".join(line.words for line in read(svg).head)
    assert said.endswith("biases of q, k, v · attention softcap 50 · no biases in feedforward")


def test_published_models_have_no_names_of_options_above_them() -> None:
    for name in zoo.FAMILIES:
        for stream in zoo.entry(name).graph().streams().values():
            assert not [said for said in above(stream) if re.search(r"[_=]|× 1(?![\d.])", said)], name


def test_a_value_that_does_nothing_is_not_told() -> None:
    def written(pattern: str, **settings: Any) -> str:
        return blockdsl.compile(pattern, dim=64, causal=True, **settings).to_text()

    assert "balance" not in written("e", moe_balance_loss=0)
    assert "balance loss 0.01" in written("e")
    assert "T5 bias: × 8" in written("a", rel_pos_bias=True)
    assert "T5 bias:" not in written("a", rel_pos_bias=True, rel_pos_scale=1)
    assert "logits ×" not in written("a", **TOKENS, tie_embedding=True, logits_scale=1)
    assert "logits × 1/√dim" in written("a", **TOKENS, tie_embedding=True)
    assert "logits ×" not in written("a", **TOKENS, logits_scale=1)
    assert "bias of the logits" in written("a", **TOKENS)
    assert "bias" not in written("a", **TOKENS, logits_bias=False)


def test_a_line_is_not_broken_within_a_quantity() -> None:
    """`32 / heads × 128 × 128`, `eps / 1e-6`, `top 2 of 16 × SwiGLU / 14,336` could not be read."""
    graph = blockdsl.compile("gdn(heads=32, dim_head=128, value_dim_head=128) f", dim=512, causal=True)
    assert read(graph.to_svg()).node("gdn0").words[2:4] == ["32 heads × 128", "× 128"]
    experts = blockdsl.compile("e(experts=512, top=10, glu, activation=silu, inner=14336)", dim=512)
    assert read(experts.to_svg()).node("e0").words[2:4] == ["top 10 of 512", "× SwiGLU 14,336"]
    assert broken("RMSNorm × (1 + gain), eps 1e-6", 11, 160, bold=False) == ["RMSNorm × (1 + gain),", "eps 1e-6"]


def test_a_kind_of_ones_own_says_its_options_in_its_words() -> None:
    options = tuple(blockdsl.Option(name, int, 1, "", setting=f"own_{name}") for name in ("taps", "holes"))
    kind = blockdsl.Kind(
        "own", "own", options, lambda o: {}, lambda o, s: 0, "x:X", words={"taps": "over {} tokens"}, steps=lambda o: []
    )
    blockdsl.register(kind)
    try:
        said = above(blockdsl.compile("own", dim=8, own_taps=3000, own_holes=2))
    finally:
        blockdsl.unregister("own")
    assert said["over 3,000 tokens"] == "own_taps=3000"
    assert said["holes=2"] == "own_holes=2"


@pytest.mark.parametrize("name", ["t5", "t5_1_1", "bart", "whisper"])
def test_two_streams_are_as_narrow_as_a_column(name: str) -> None:
    picture = read(zoo.entry(name).graph().to_svg())
    assert picture.width <= 400
    both, *each = [line.area for line in picture.head if "parameters" in line.words]
    assert len({area.top for area in each}) == 1
    assert len(each) == 2
    assert both.bottom < each[0].top


@pytest.mark.parametrize(
    "pattern", ["(a & f)*6", "(a & f & conv & rglru)*6", "a & (f & (conv f)) & f & f & f", "e & c & kda & m & f"]
)
def test_so_are_branches(pattern: str) -> None:
    assert read(blockdsl.compile(pattern, dim=512, causal=True).to_svg()).width <= 450


def test_a_number_is_short_and_none_is_rounded_to_be_so() -> None:
    numbers = (8192, 1_000_000, 10**9, 10**11, 1_234_567_890, 0.5, 1e-6, 1e11)
    said = ["8,192", "1,000,000", "1e9", "1e11", "1,234,567,890", "0.5", "1e-6", "1e11"]
    assert [in_digits(number) for number in numbers] == said
