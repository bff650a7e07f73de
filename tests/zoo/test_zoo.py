"""The zoo: every entry has the parameters that were published, says no more than it must, and is found by its name."""

from __future__ import annotations

import re

import pytest

import blockdsl
from blockdsl import UserError, zoo
from blockdsl.registry.settings import table

from .published import PARAMETERS


def layers(depth: int, *parts: int) -> int:
    return depth * sum(parts)


# Those whose cards have a rounded number alone, by hand from the configuration.
BY_HAND = {
    # 4 d² of attention, 8 d² of feedforward, two gains a layer; embedding and the last gain
    "mpt-30b": layers(48, 12 * 7168**2, 2 * 7168) + 50432 * 7168 + 7168,
}


def counted(name: str) -> int:
    """The parameters of a model's stacks; tokens that both have embedded once."""
    return sum(graph.parameters() for graph in zoo.entry(name).graphs().values())


@pytest.mark.parametrize("name", zoo.names())
def test_parameters(name: str) -> None:
    assert counted(name) == {**PARAMETERS, **BY_HAND}[name]


@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_no_entry_says_more_than_it_must(name: str) -> None:
    known, entry = table(), zoo.entry(name)
    for part, text in entry.texts.items():
        patterns = [blockdsl.parse(entry(size).texts[part]) for size in entry.sizes]
        said = [{n for n, value in p.settings.items() if value == known[n].default} for p in patterns]
        assert set.intersection(*said) == set(), "the default says so"
        assert {pattern.unused_definitions for pattern in patterns} == {()}
        assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_an_entry_says_where_it_is_from(name: str) -> None:
    entry = zoo.entry(name)
    assert re.fullmatch(r"arXiv:\d{4}\.\d{5}|[^,]+, 20\d\d", entry.source)
    assert repr(entry) == f"<{name} {entry.sizes[0]}: {entry.source}>"
    assert entry == getattr(zoo, name) == zoo.entry(f"{name}-{entry.size}") == entry(entry.size)
    assert str(entry).splitlines()[-1] == [*entry.texts.values()][-1].splitlines()[-1]


def test_as_it_is_used() -> None:
    assert zoo.gpt2.sizes == ("small", "medium", "large", "xl")
    assert zoo.gpt2.text == (
        "set dim=768, heads=12, causal, attn_qkv_bias, attn_out_bias, ff_activation=gelu_tanh;\n"
        "set num_tokens=50257, max_seq_len=1024, tie_embedding, logits_scale=1;\n(a f)*12"
    )
    assert blockdsl.compile(zoo.gpt2.text) == zoo.gpt2.graph()
    assert zoo.gpt2("XL").graph().dim == 1600
    assert zoo.llama3("70b").graph(max_seq_len=64).model_options()["max_seq_len"] == 64
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
