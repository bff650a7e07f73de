"""Activation checkpointing: nothing changes but what is kept for the backward pass."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import blockdsl
import xt_blocks
from xt_blocks.kernels import tiles as blockwise
from xt_blocks.runtime import stack as stack_module

from .variants import EITHER_WAY, SIZES, inputs, language_model, stack, tokens

KINDS = ("block", "stage")


def trained(model: xt_blocks.Stack, *args: Any, **kwargs: Any) -> list[Tensor | None]:
    """The output and every gradient of a step, dropout drawn from a seed of its own."""
    torch.manual_seed(1)
    out = model(*args, **kwargs)
    out.square().mean().backward()
    return [out, *(parameter.grad for parameter in model.parameters())]


def same(ours: list[Tensor | None], theirs: list[Tensor | None]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def alike(name: str, kind: str, causal: bool = True, **settings: Any) -> tuple[xt_blocks.Stack, xt_blocks.Stack]:
    """A stack that keeps everything, and one with the same weights that does not."""
    plain, other = stack(name, causal, **settings), stack(name, causal, checkpoint=kind, **settings)
    other.load_state_dict(plain.state_dict())
    return plain.train(), other.train()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "causal"), EITHER_WAY)
def test_a_step_is_the_same(name: str, causal: bool, kind: str) -> None:
    dropout = {"attn_dropout": 0.2, "ff_dropout": 0.2, "layer_dropout": 0.2}
    plain, other = alike(
        name, kind, causal, **dropout, **({"cross_attn_tokens_dropout": 0.4} if "cross" in name else {})
    )
    x, extra = inputs(plain)
    mask = torch.arange(7) < torch.tensor([[7], [3]])
    same(trained(plain, x, mask=mask, **extra), trained(other, x, mask=mask, **extra))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["plain", "T5 bias, memory kv", "window", "dynamic bias", "ALiBi, learned", "talking heads"]
)
def test_a_step_by_tiles_is_the_same(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "ROWS", 2)
    monkeypatch.setattr(blockwise, "FEWEST", 4)
    plain, other = alike(name, kind, attn_dropout=0.2, ff_dropout=0.2)
    x, extra = inputs(plain)
    same(trained(plain, x, **extra), trained(other, x, **extra))


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_with_memories_is_the_same(kind: str) -> None:
    gradients = []
    for model in alike("shift 2", kind, rotary_pos_emb=True):
        with torch.no_grad():
            _, seen = model(torch.ones(2, 5, SIZES["dim"]), return_hiddens=True)
            mems = model.remember(None, seen, None, 4)
        gradients.append(trained(model, torch.ones(2, 7, SIZES["dim"]) / 3, mems=mems))
    same(*gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_low_precision_is_the_same(kind: str) -> None:
    plain, other = alike("T5 bias", kind)
    x, extra = inputs(plain)
    with torch.autocast("cpu", torch.bfloat16):
        same(trained(plain, x, **extra), trained(other, x, **extra))


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_seen_on_the_way_is_the_same(kind: str) -> None:
    plain, other = alike("residual attention, parallel", kind)
    x, _ = inputs(plain)
    seen = [xt_blocks.Intermediates(keep_attention=True) for _ in range(2)]
    for model, record in zip((plain, other), seen, strict=True):
        model(x, intermediates=record)
    ours, theirs = seen
    before = [*theirs.hiddens, *theirs.attn_maps]
    assert [*ours.streams] == [*theirs.streams]
    assert [*ours.attention] == [*theirs.attention]
    same([*ours.hiddens, *ours.attn_maps], before)
    sum(own.square().sum() for own in before).backward()
    assert all(one is other for one, other in zip(before, [*theirs.hiddens, *theirs.attn_maps], strict=True))
    sum(own.square().sum() for own in [*ours.hiddens, *ours.attn_maps]).backward()
    same([own.grad for own in plain.parameters()], [own.grad for own in other.parameters()])


# What is kept --------------------------------------------------------------------------------------------------------


class Kept(TorchDispatchMode):
    """Bytes of what operations made and is still there, views of `given` tensors aside."""

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()
        self.bytes = 0
        self._known = {own.untyped_storage()._cdata for own in given}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for own in out if isinstance(out, tuple | list) else (out,):
            if isinstance(own, Tensor):
                self._watch(own.untyped_storage())
        return out

    def _watch(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.bytes += size
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.bytes -= size


def kept(pattern: str, checkpoint: str | None, **settings: Any) -> float:
    """What a forward pass leaves for the backward pass, in streams of the stack."""
    model = xt_blocks.Decoder(pattern=pattern, **(SIZES | {"checkpoint": checkpoint} | settings)).train()
    x = torch.randn(2, 64, SIZES["dim"])
    with Kept([x, *model.parameters()]) as count:
        out = model(x)
        gc.collect()
    assert out.requires_grad
    return count.bytes / (x.numel() * x.element_size())


def test_memory_falls_to_what_segments_start_from() -> None:
    blocks = 16
    whole, by_block, by_stage = (kept(f"(a f)*{blocks // 2}", kind) for kind in (None, *KINDS))
    assert whole > 6 * blocks
    assert by_stage == pytest.approx(2, abs=0.2)  # what the last block and the norm give
    assert by_block == pytest.approx(2 + blocks - 1, abs=0.2)  # and the stream before each block
    assert kept("(a f)*4 | (a f)*4", "stage") == pytest.approx(2 + 1, abs=0.2)


def test_only_what_asks_for_it_is_computed_again() -> None:
    none, one, all_of_them = (
        kept(text, None) for text in ("(a f)*4", "(a f)*3 a f(checkpoint=block)", "(a f(checkpoint=block))*4")
    )
    assert one < none - 8  # two hidden layers of four times the features, and the normed stream
    assert none - all_of_them == pytest.approx(4 * (none - one))


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_without_its_backward_pass_is_forgotten(kind: str) -> None:
    model = stack("parallel chains", checkpoint=kind).train()
    out = model(torch.randn(2, 7, SIZES["dim"], requires_grad=True), return_hiddens=True)[0]
    last = weakref.ref(out)
    del out
    gc.collect()
    assert last() is None


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_backward_pass_nothing_is_done(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(stack_module, "recompute", never)
    model = language_model(checkpoint=kind)
    model(tokens())  # in evaluation
    xt_blocks.AutoregressiveWrapper(model.train()).generate(tokens(), 3)
    with torch.no_grad():
        model(tokens())
    with pytest.raises(AssertionError):
        model(tokens())


@pytest.mark.parametrize("kind", KINDS)
def test_it_compiles_whole(kind: str) -> None:
    plain, other = alike("ties that differ in use", kind)
    x, _ = inputs(plain)
    torch._dynamo.reset()
    same(trained(plain, x), trained(torch.compile(other, backend="eager", fullgraph=True), x))


@pytest.mark.parametrize("kind", KINDS)
def test_function_transforms_go_through_it(kind: str) -> None:
    plain, other = alike("plain", kind)
    x, _ = inputs(plain)

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(other, parameters, (x,)).square().mean()  # type: ignore[no-any-return]

    found = torch.func.grad(loss)(dict(other.named_parameters()))
    for own, wanted in zip(found.values(), trained(plain, x)[1:], strict=True):
        torch.testing.assert_close(own, wanted)


# Segments ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a f", "a0 f1"),
        ("set checkpoint=block; a f", "[a0] [f1]"),
        ("set checkpoint=stage; a f | f a", "[a0 f1] [f2 a3]"),
        ("a f(checkpoint=block) a f(checkpoint=block)", "a0 [f1] a2 [f3]"),
        ("a(checkpoint=stage) f(checkpoint=stage) a f(checkpoint=stage)", "[a0 f1] a2 [f3]"),
        ("set checkpoint=stage; a f(checkpoint=none) a f(checkpoint=block)", "[a0] f1 [a2] [f3]"),
        ("set checkpoint=stage; a (a & f) f | a & f", "[a0 a1 f2 sum0 f3] [a4 f5 sum1]"),
        ("set checkpoint=block; a & f", "[a0] [f1] sum0"),
    ],
)
def test_the_segments_of_a_plan(pattern: str, expected: str) -> None:
    model = xt_blocks.lower(blockdsl.compile(pattern, **SIZES))
    assert isinstance(model, xt_blocks.Stack)
    parts = [(" ".join(step.node for step in part.steps), part.recomputed) for part in model.parts]
    assert " ".join(f"[{nodes}]" if again else nodes for nodes, again in parts) == expected
