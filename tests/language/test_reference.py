"""The reference: every option is there once, under its area, with examples that can be typed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

import blockdsl
from blockdsl import Kind, Option, Pattern, parse
from blockdsl.language.macros import MACROS
from blockdsl.language.ordering import ORDERING_KEYWORDS, pattern_of, words_of
from blockdsl.reference import AREAS, Entry, entries, find, telling
from blockdsl.registry.kinds import kinds
from blockdsl.registry.settings import STACK_SETTINGS, table
from blockdsl.registry.streams import PAIR_OPTIONS

from ..built_in import BUILT_IN

ENTRIES = entries()
ids = [f"{entry.keyword or entry.name} {entry.pattern}" for entry in ENTRIES]


@pytest.fixture
def dwconv() -> Iterator[Kind]:
    options = (
        Option("kernel", int, 7, "width of the kernel (arXiv:2005.08100)", setting="dwconv_kernel", least=1),
        Option("causal", bool, False, "no token sees a later one", setting="causal"),
        Option("ends", str, "same", "what is done there", choices=("same", "valid")),
    )
    kind = Kind("dwconv", "convolution", options, shapes=lambda o: {}, flops=lambda o, sizes: 0, module="x:X")
    yield blockdsl.register(kind)
    blockdsl.unregister("dwconv")


def units(pattern: Pattern) -> list[tuple[Any, ...]]:
    return [(block.kind, block.scale, block.shift, block.given) for block in pattern.expansion.blocks()]


def by_area() -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for entry in entries():
        out.setdefault(entry.area, []).append(entry.keyword or entry.name)
    return out


def test_every_setting_ordering_and_macro_is_there_once() -> None:
    keywords = [
        entry.keyword for entry in ENTRIES if entry.keyword and entry.keyword not in ("shift_tokens", "layer_dropout")
    ]
    assert len(keywords) == len(set(keywords))
    settings = {*table(), *(option.name for option in PAIR_OPTIONS)}
    assert {entry.keyword for entry in ENTRIES} == {*settings, *(row.name for row in ORDERING_KEYWORDS), None}
    assert [entry.name for entry in ENTRIES if entry.keyword is None and not entry.kinds] == list(MACROS)
    for kind in kinds().values():
        for option in kind.written_options():
            (found,) = [e for e in ENTRIES if e.name == option.name and kind.name in e.kinds]
            assert found.keyword == option.setting


def test_the_ordering_keywords_are_those_that_are_taken() -> None:
    assert [row.name for row in ORDERING_KEYWORDS] == [*inspect.signature(words_of).parameters]


def test_each_stands_in_its_area() -> None:
    areas = by_area()
    assert [area for area in AREAS if area in areas] == [*areas][: len(AREAS)]
    assert {*[*areas][len(AREAS) :]} <= {kind.title for kind in kinds().values()}
    assert areas["stack"] == ["dim", "causal", "context", "bidirectional"], (
        "others have an area: give the option area=..."
    )
    some = {
        "embedding": {"num_tokens", "emb_dropout", "tie_embedding", "use_abs_pos_emb"},
        "attention": {"attn_sparse_topk", "heads", "attn_talking_heads", "residual_attn", "cross_residual_attn"},
        "feedforward": {"ff_glu", "ff_mult", "ff_post_act_ln"},
        "norms and residuals": {"use_rmsnorm", "pre_norm", "zero_init_branch_output"},
        "positions": {
            "rotary_pos_emb",
            "rotary_emb_dim",
            "rel_pos_bias",
            "dynamic_pos_bias",
            "alibi_num_heads",
            "rotary_xpos",
        },
        "ordering": {"depth", "macaron", "sandwich_coef", "par_ratio", "custom_layers", "shift_tokens", "sandwich"},
        "regularisers": {"layer_dropout", "attn_dropout", "ff_dropout"},
        "recurrence": {"max_mem_len", "shift_mem_down"},
        "memory in training": {"checkpoint"},
    }
    for area, names in some.items():
        assert names <= set(areas[area]), area


@pytest.mark.parametrize("entry", ENTRIES, ids=ids)
def test_the_examples_can_be_typed(entry: Entry) -> None:
    blocks = "a => c" if entry.area == "two streams" else "a"
    assert parse(entry.pattern if not entry.pattern.endswith(";") else f"{entry.pattern} {blocks}")
    graph = blockdsl.compile(entry.example, **({} if entry.name == "dim" else {"dim": 512}))
    assert len(graph.nodes("block")) > 1
    assert entry.pattern in entry.example


@pytest.mark.parametrize("entry", ENTRIES, ids=ids)
def test_the_keyword_says_what_the_pattern_says(entry: Entry) -> None:
    given: dict[str, Any] = eval(f"dict({entry.keyword_example})")
    if entry.keyword is None:
        assert given == {}
    elif entry.area == "ordering" and "set" not in entry.pattern:
        assert units(pattern_of(**given)) == units(parse(entry.pattern))
    else:
        assert blockdsl.parse_settings(entry.setting.removeprefix("set ").removesuffix(";")).items() <= given.items()
        others = {"images": "(a f)*2", "two streams": "a => a c"}  # an image has no context
        blockdsl.compile(others.get(entry.area, "(a c (f & f))*2"), **({"dim": 512} | given))


@pytest.mark.parametrize("entry", ENTRIES, ids=ids)
def test_papers_are_taken_out_of_the_text(entry: Entry) -> None:
    assert "arXiv" not in entry.doc
    assert "doi" not in entry.doc
    assert entry.doc == entry.doc.strip()
    for paper in entry.papers:
        assert re.search(r"arXiv:\d{4}\.\d{4,5}$|doi:10\.\d+/\S+$", paper), paper


@pytest.mark.parametrize(
    ("name", "papers"),
    [
        ("attn_sparse_topk", ("arXiv:1912.11637",)),
        ("attn_kv_heads", ("arXiv:2305.13245",)),
        ("attn_gate_values", ("doi:10.1038/s41586-021-03819-2",)),
        ("ff_post_act_ln", ("NormFormer, arXiv:2110.09456",)),
        ("sandwich", ("arXiv:1911.03864",)),
        ("par_ratio", ("arXiv:2009.04534",)),
        ("dim", ()),
    ],
)
def test_a_paper_is_that_of_the_declaration(name: str, papers: tuple[str, ...]) -> None:
    (entry,) = find(name)
    assert entry.papers == papers


def test_an_entry_is_found_by_keyword_by_option_and_by_macro() -> None:
    assert find("sparse_topk") == find("attn_sparse_topk")
    assert [(e.keyword, e.kinds) for e in find("dropout")] == [
        ("attn_dropout", ("a", "c")),
        ("ff_dropout", ("f",)),
        ("moe_dropout", ("e",)),
    ]
    assert [(e.keyword, e.pattern) for e in find("macaron")] == [("macaron", "macaron(6)"), (None, "macaron(6)")]
    assert [e.pattern for e in find("residual_attn")] == ["a(residual_attn)", "c(residual_attn)"]
    assert find("use_rmsnorm")[0].kinds == BUILT_IN
    assert find("causal")[0].kinds == ("a",)
    assert find("enc_heads") == find("heads")
    assert find("nothing") == []


@pytest.mark.parametrize(
    "option", [*STACK_SETTINGS, *(o for kind in kinds().values() for o in kind.all_options())], ids=lambda o: o.name
)
def test_an_example_shows_an_allowed_value_that_is_not_the_default(option: Option) -> None:
    assert option.fault(telling(option)) is None
    assert telling(option) != option.default


@pytest.mark.parametrize(
    ("option", "value"),
    [
        (Option("x", bool, True, ""), False),
        (Option("x", int, 8, ""), 16),
        (Option("x", int, None, "", least=2, most=3, optional=True), 2),
        (Option("x", float, 0.0, "", least=0, below=1), 0.1),
        (Option("x", float, 4, "", least=0), 2),
        (Option("x", str, "a", "", choices=("a", "b")), "b"),
    ],
)
def test_the_value_of_an_example_is_taken_from_the_range(option: Option, value: Any) -> None:
    assert telling(option) == value


def test_a_kind_of_ones_own_appears_and_goes(dwconv: Kind) -> None:
    assert by_area()["convolution"] == ["dwconv_kernel", "ends"]
    kernel, ends, causal = find("dwconv_kernel")[0], find("ends")[0], find("causal")[0]
    assert (kernel.pattern, kernel.setting, kernel.papers) == (
        "dwconv(kernel=8)",
        "set dwconv_kernel=8;",
        ("arXiv:2005.08100",),
    )
    assert (ends.keyword, ends.pattern, ends.values) == (None, "dwconv(ends=valid)", "one of 'same', 'valid'")
    assert causal.kinds == ("a", "dwconv")
    assert find("use_rmsnorm")[0].kinds == (*BUILT_IN, "dwconv")
    assert parse(ends.example)
    blockdsl.unregister("dwconv")
    assert "convolution" not in by_area()
    blockdsl.register(dwconv)
