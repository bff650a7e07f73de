"""Selectors, against lists of nodes written out by hand, and what is said of those that select nothing."""

from __future__ import annotations

import pytest
import torch

import blockdsl
from blockdsl import PatternError
from blockdsl.errors import UserError
from xt_blocks import Decoder, TransformerWrapper, XTransformer, lower, parameter_groups, parameters

G = blockdsl.compile(
    "stem: f ^u a ^v f | dec: (a(heads=2) f(glu))*4 <u/2@g"
    " | (a@t f@t2)*2 (a f)@core*2 <u@g | a(rotary=false, values=v)",
    dim=16,
    heads=4,
    rotary_pos_emb=True,
)
PAIR = blockdsl.compile("(a f)*2 => one: a c f | two: a c f", dim=16, heads=2)


@pytest.mark.parametrize(
    ("selector", "nodes"),
    [
        ("a", "a1 a3 a5 a7 a9 a11 a13 a15 a17 a19"),
        ("a:even", "a1 a5 a9 a13 a17"),
        ("a:odd", "a3 a7 a11 a15 a19"),
        ("dec: a[0:6]", "a3 a5 a7 a9"),
        ("2:a[1:3]", "a5 a7"),
        ("dec: f:odd, stem: a", "a1 f6 f10"),
        ("f(glu)", "f4 f6 f8 f10"),
        ("f(glu=false)[-1]", "f18"),
        ("a(heads=2)", "a3 a5 a7 a9"),
        ("a(rotary=false)", "a19"),
        ("a(values=v)", "a19"),
        ("a(rotary_theta=10000, heads=4)[::3]", "a1 a15"),
        ("@core", "a15 f16 a17 f18"),
        ("@t", "a11 a13"),
        ("@g", "read0 read1"),
        ("<u", "read0 read1"),
        ("^u, ^v", "f0 a1"),
        ("stem: *", "f0 a1 f2"),
        ("read1, a9[0]", "a9 read1"),
        ("output", "output"),
    ],
)
def test_nodes_in_the_languages_own_words(selector: str, nodes: str) -> None:
    assert G.select(selector) == nodes.split()


def test_of_two_streams() -> None:
    assert PAIR.select("a") == ["encoder.a0", "encoder.a2", "a0", "a3"]
    assert PAIR.select("enc: a:odd, dec: c") == ["encoder.a2", "c1", "c4"]
    assert PAIR.select("encoder: *") == [f"encoder.{node}" for node in ("a0", "f1", "a2", "f3")]
    assert PAIR.select("two: *") == ["a3", "c4", "f5"]


@pytest.mark.parametrize(
    ("selector", "at", "message"),
    [
        ("attn", 1, "'attn' is no kind of block and no node"),
        ("a, kore: a", 4, "no stage is called 'kore'"),
        ("f, a:evn", 4, "'evn' does not say which of a kind's blocks\n  f, a:evn\n     ^^^^^\n  as in a:even or a:odd"),
        ("@cor", 1, "nothing is tied as 'cor'\n  @cor\n  ^^^^\n  did you mean 'core'?"),
        ("^w", 1, "there is no label 'w'"),
        ("a[19]", 1, "this selects nothing"),
        ("a[x]", 3, "'x' is no place"),
        ("a[::0]", 3, "'::0' is no place"),
        ("a[1]:even", 1, "a part says which by [...] and by even or odd"),
        ("f, a(hedas=3)", 6, "'a' (self-attention) has no option 'hedas'"),
        ("f(glu=2)", 3, "glu must be true or false, not 2"),
        ("", 1, "a selector is empty"),
        ("a,", 3, "a selector is empty"),
        ("(a f)*2", 1, "'(a f)*2' selects no blocks"),
        ("a0(heads=2)", 1, "'a0' is no kind of block and has no options"),
    ],
)
def test_what_selects_nothing_is_said_at_its_place(selector: str, at: int, message: str) -> None:
    with pytest.raises(PatternError) as caught:
        G.select(selector)
    assert caught.value.column == at
    assert str(caught.value).startswith(f"1:{at}: {message}")
    assert caught.value.hint


def test_parameters_by_selector_are_those_of_the_blocks() -> None:
    stack = lower(G)
    assert {name.split(".")[1] for name in parameters(stack, "dec: a")} == {"a3", "a5", "a7", "a9"}
    assert {name.split(".")[1] for name in parameters(stack, "@core[2:]")} == {"a15", "f16"}  # the owners
    every = {name for name, _ in stack.named_parameters() if name.split(".")[0] == "blocks"}
    assert parameters(stack, "*").keys() == every  # these reads have none
    pair = XTransformer(
        dim=16, enc_depth=1, dec_depth=1, enc_num_tokens=9, dec_num_tokens=9, enc_max_seq_len=8, dec_max_seq_len=8
    )
    first = {name.split(".")[0] for name in parameters(pair, "enc: f")}
    assert first == {"encoder"}


def test_groups_hold_every_parameter_once() -> None:
    layers = Decoder(dim=16, heads=2, pattern="(a f(glu))*3")
    model = TransformerWrapper(num_tokens=9, max_seq_len=8, attn_layers=layers)
    groups = parameter_groups(model, {"a": {"lr": 0.1}, "f[0]": {"weight_decay": 0.0}})
    assert [{name: value for name, value in group.items() if name != "params"} for group in groups] == [
        {"lr": 0.1},
        {"weight_decay": 0.0},
        {},
    ]
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(map(id, model.parameters()))
    torch.optim.AdamW(groups, lr=1e-3)
    with pytest.raises(UserError, match="is selected twice, by 'a' and by 'a:odd'"):
        parameter_groups(model, {"a": {}, "a:odd": {}})
    with pytest.raises(TypeError, match="there is no stack of blocks in Linear"):
        parameters(torch.nn.Linear(2, 2), "a")
