"""Words of the field that are none of ours: what is ours instead is named, or that there is no such thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import blockdsl
import xt_blocks
from blockdsl import UserError
from blockdsl.errors import did_you_mean
from blockdsl.language.ordering import ORDERING_KEYWORDS
from blockdsl.reference import entries, find, of_kind
from blockdsl.registry.kinds import kinds
from blockdsl.registry.settings import table
from blockdsl.synonyms import _MEANT, _NOT_HERE, absent, meant

KEYWORDS = {*table(), *(row.name for row in ORDERING_KEYWORDS)}


def test_each_stands_for_keywords_that_there_are_and_is_none_itself() -> None:
    assert {name for names in _MEANT.values() for name in names} <= KEYWORDS
    assert not KEYWORDS & {*_MEANT, *_NOT_HERE}
    assert not _MEANT.keys() & _NOT_HERE.keys()


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("rope", ["rotary_pos_emb"]),
        ("GQA", ["attn_kv_heads"]),
        ("attn_sliding_window", ["attn_max_attend_past"]),
        ("sliding-window", ["attn_max_attend_past"]),
        ("swiglu", ["ff_glu", "ff_swish"]),
        ("ff_swiglu", ["ff_glu", "ff_swish"]),
        ("use_rope", ["rotary_pos_emb"]),
        ("enc_rope", ["enc_rotary_pos_emb"]),
        ("zebra", []),
    ],
)
def test_what_is_meant(word: str, names: list[str]) -> None:
    assert [*meant(word)] == names


def decoder(**settings: Any) -> Any:
    return xt_blocks.Decoder(dim=16, depth=1, **settings)


def model(**settings: Any) -> Any:
    return xt_blocks.TransformerWrapper(num_tokens=4, max_seq_len=4, attn_layers=decoder(), **settings)


def attention(**settings: Any) -> Any:
    return xt_blocks.Attention(dim=16, **settings)


def compiled(**settings: Any) -> Any:
    return blockdsl.compile("a f", dim=16, **settings)


@pytest.mark.parametrize(
    ("make", "keyword", "hint"),
    [
        (decoder, "attn_sliding_window", "did you mean 'attn_max_attend_past'?"),
        (compiled, "sliding_window", "did you mean 'attn_max_attend_past'?"),
        (attention, "window", "did you mean 'max_attend_past'?"),
        (attention, "gqa", "did you mean 'kv_heads'?"),
        (decoder, "kv_heads", "did you mean 'attn_kv_heads'?"),
        (decoder, "rope", "did you mean 'rotary_pos_emb'?"),
        (decoder, "swiglu", "did you mean 'ff_glu' and 'ff_swish'?"),
        (decoder, "d_model", "did you mean 'dim'?"),
        (model, "vocab_size", "did you mean 'num_tokens'?"),
        (model, "rope", "it is a setting of the stack: give rotary_pos_emb to attn_layers=Decoder(...)"),
        (model, "performer", "there is no attention by random features here"),
        (decoder, "num_experts_per_tok", "did you mean 'moe_top'?"),
        (decoder, "d_state", "did you mean 'ssm_state'?"),
        (decoder, "mult", "did you mean 'ff_mult' or 'moe_mult'?"),
    ],
)
def test_a_keyword_of_others_has_ours_named(make: Callable[..., Any], keyword: str, hint: str) -> None:
    with pytest.raises(TypeError) as caught:
        make(**{keyword: 2})
    assert str(caught.value).endswith(f"'{keyword}'; {hint}")


@pytest.mark.parametrize(
    ("block", "hint"),
    [("e(aux_loss=1)", "balance_loss"), ("e(norm_topk_prob)", "renormalise"), ("mamba(d_conv=4)", "kernel")],
)
def test_an_option_of_others_has_ours_named(block: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"did you mean '{hint}'"):
        blockdsl.parse(block)


@pytest.mark.parametrize("kind", kinds())
def test_options_of_a_kind_are_spelled_for_it(kind: str) -> None:
    for entry in of_kind(kind):
        if not entry.pattern.startswith("set "):
            assert kind in blockdsl.parse(entry.pattern).layer_types, entry.pattern
            assert f"{kind}(" in entry.pattern


def test_a_word_is_looked_up_where_what_is_meant_is_known() -> None:
    assert did_you_mean("rope", ["rotary_pos_emb", "dim"]) == "did you mean 'rotary_pos_emb'?"
    assert did_you_mean("rope", ["dim"]) == ""
    assert absent("rope") == ""


@pytest.mark.parametrize("layers", [["a", ["f"]], [{"a": 1}], [[], "a"], ["a", None], "a f", 5, []])
def test_custom_layers_that_are_no_list_of_kinds_are_refused_in_words(layers: Any) -> None:
    with pytest.raises(UserError, match=r"^custom_layers is a list of block kinds \(a, c, f"):
        decoder(custom_layers=layers)


def test_the_reference_finds_other_names_kinds_and_areas() -> None:
    assert [entry.keyword for entry in find("rope")] == ["rotary_pos_emb"]
    assert {entry.keyword for entry in find("swiglu")} == {"ff_glu", "ff_swish"}
    assert find("performer") == of_kind("performer") == []
    everything = entries()
    for word, kind in (("a", "a"), ("attention", "a"), ("cross-attention", "c"), ("mlp", "f"), ("f", "f")):
        named = [entry.keyword or entry.name for entry in everything if kind in entry.kinds]
        assert [entry.keyword or entry.name for entry in of_kind(word)] == named
    assert {entry.area for entry in of_kind("positions")} == {"positions"}
