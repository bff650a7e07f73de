"""Models whose tied units are repeated more or fewer times: the same parameters, the numbers of the other depth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import blockdsl
import xt_blocks
from blockdsl import UserError
from xt_blocks import with_loops

TEXT = "a f ^e (<e(cat) a f)@core*N a"
SETTINGS: dict[str, Any] = {"dim": 16, "heads": 2, "causal": True, "rotary_pos_emb": True}
TOKENS = {"num_tokens": 17, "max_seq_len": 32, "num_memory_tokens": 1}


def written(number: int, **more: Any) -> Any:
    return xt_blocks.lower(blockdsl.compile(TEXT.replace("N", str(number)), **SETTINGS, **more)).eval()


def filled(model: nn.Module, like: nn.Module) -> Any:
    """With the weights of a model of another depth; names count nodes, so that they differ after the loop."""
    model.load_state_dict(dict(zip(model.state_dict(), like.state_dict().values(), strict=True)))
    return model


@pytest.mark.parametrize("number", [1, 2, 5])
def test_it_computes_trains_and_writes_as_the_depth_that_is_asked_for(number: int) -> None:
    torch.manual_seed(0)
    net = written(3, **TOKENS)
    model = xt_blocks.AutoregressiveWrapper(net)
    other = with_loops(model, core=number)
    expected = xt_blocks.AutoregressiveWrapper(filled(written(number, **TOKENS), net))
    x = torch.randint(0, 17, (2, 9))
    assert other(x).equal(expected(x))
    assert other.generate(x, 6, temperature=0).equal(expected.generate(x, 6, temperature=0))
    other(x).backward()
    expected(x).backward()
    for one, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one.grad, theirs.grad)
    assert other.net.graph == expected.net.graph
    assert len(xt_blocks.record(other.net, x)) == 3 + 3 * number  # of each loop a read and two blocks
    assert model.net.pattern == "a f ^e (<e(cat) a f)@core*3 a", "the model stays as it is"
    assert len(model.net.attn_layers.plan) == 12


def test_modules_parameters_and_hooks_are_the_models_own() -> None:
    model = written(2)
    other = with_loops(model, core=4)
    assert other.blocks["a0"] is model.blocks["a0"]
    assert {id(p) for p in other.parameters()} == {id(p) for p in model.parameters()}
    assert [*other.state_dict()] == [*model.state_dict()]
    seen: list[int] = []
    model.blocks["a2"].register_forward_hook(lambda *_: seen.append(1))
    other(torch.randn(1, 3, 16))
    assert len(seen) == 4
    other.load_state_dict(model.state_dict())
    again = with_loops(other, core=2)
    x = torch.randn(2, 5, 16)
    assert again(x).equal(model(x))


def test_an_owner_that_goes_leaves_its_module_to_the_next() -> None:
    """Where the unit's first repeat has no counterpart of what stands between units."""
    model = xt_blocks.lower(blockdsl.compile("((a f)@core f@out)*3", **SETTINGS)).eval()
    other = with_loops(model, core=1)
    expected = filled(xt_blocks.lower(blockdsl.compile("(a f)@core f@out", **SETTINGS)).eval(), model)
    x = torch.randn(2, 5, 16)
    assert other(x).equal(expected(x))


def test_models_around_stacks_and_folders(tmp_path: Any) -> None:
    pair = xt_blocks.lower(blockdsl.compile("(a f)@in*2 => (a c f)@out*2", dim=16, heads=2)).eval()
    other = with_loops(pair, **{"in": 3})
    assert other.graph == blockdsl.compile("(a f)@in*3 => (a c f)@out*2", dim=16, heads=2)
    assert len(other.encoder.plan) == 6
    assert other.decoder.blocks["a0"] is pair.decoder.blocks["a0"]
    net = with_loops(written(1, **TOKENS), core=3)
    net.save_pretrained(tmp_path)
    x = torch.randint(0, 17, (1, 5))
    assert xt_blocks.TransformerWrapper.from_pretrained(tmp_path).eval()(x).equal(net(x))


def test_what_cannot_be_looped_is_refused() -> None:
    model = written(2)
    with pytest.raises(UserError, match=r"(?s)no blocks of the model are tied as 'kore', as in .*did you mean 'core'"):
        with_loops(model, kore=3)
    compiled = nn.Sequential(model)
    compiled._orig_mod = model  # as torch.compile's wrapper has it
    with pytest.raises(TypeError, match="compile the result"):
        with_loops(compiled, core=3)
