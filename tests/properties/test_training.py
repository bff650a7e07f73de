"""Training: every parameter gets a gradient, dropout leaves state in order, checkpointing changes nothing."""

from __future__ import annotations

import functools
from typing import Any

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import xt_blocks

from .models import KINDS, SIZES, Model, close, context_for, examples, models, tokens

READERS = {
    **{"layer_dropout": KINDS, "attn_dropout": "ac", "ff_dropout": "f", "moe_dropout": "e"},
    **{"attn_sublayer_dropout": "ac", "ff_sublayer_dropout": "f"},
}


def with_dropout(drawn: Model) -> Model:
    """The same with every kind of dropout that its blocks have."""
    drops = {name: 0.5 for name, kinds in READERS.items() if drawn.kinds & {*kinds}}
    return Model(drawn.text, drops | drawn.settings, {"emb_dropout": 0.5} | drawn.around, drawn.seed)


@examples(40)
@given(models(), st.booleans())
def test_every_parameter_gets_a_finite_gradient(drawn: Model, dropped: bool) -> None:
    model = (with_dropout(drawn) if dropped else drawn).model().train()
    out = model(tokens(2, 6), mask=torch.arange(6) < torch.tensor([[6], [4]]), **context_for(model, 2))
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad, name
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@examples(27)
@given(models(causal=True))
def test_dropout_leaves_caches_and_memories_in_order(drawn: Model) -> None:
    assume(drawn.graph.why_not_segmented() is None)
    drawn = with_dropout(drawn)
    drawn.around.setdefault("max_mem_len", 4)
    model, beside = drawn.model(), {}
    beside = context_for(model, 2)
    x = tokens(2, 6)

    def run(training: bool) -> tuple[Any, dict[str, Tensor]]:
        model.train(training)
        _, mems = model(x, return_mems=True, **beside)
        held = {}
        if model.graph.why_not_cached() is None:
            cache = model.new_cache(2)
            for i, part in enumerate(x.split([3, 2, 1], dim=1)):
                model(part, cache=cache, **(beside if i == 0 else {}))
            held = {node: state.tensors()[0] for node, state in cache.nodes.items()}
            assert cache.length == 6 + model.num_memory_tokens
        return mems, held

    with torch.no_grad():
        (trained, held), (known, want) = run(True), run(False)
    assert trained.length == known.length
    assert {node: stream.shape for node, stream in trained.streams.items()} == {
        node: stream.shape for node, stream in known.streams.items()
    }
    assert {node: keys.shape for node, keys in held.items()} == {node: keys.shape for node, keys in want.items()}
    length = 6 + model.num_memory_tokens
    for node, keys in held.items():
        assert (
            model.graph.block(node)["kind"] != "a" or (keys[..., :length, :] != 0).any(dim=-1).all()
        )  # each token's are there
    with torch.no_grad():
        assert torch.equal(model(x, **beside), model(x, **beside))


def checkpointed(stack: xt_blocks.Stack) -> None:
    for block in stack.blocks.values():
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]


@examples(34)
@given(models(around=False), st.booleans(), st.booleans())
def test_checkpointing_gives_the_same_gradients(drawn: Model, whole: bool, masked: bool) -> None:
    drawn = with_dropout(drawn)
    x, gradients = torch.randn(2, 6, SIZES["dim"], dtype=torch.float64, requires_grad=True), []
    for saved in (False, True):
        stack = drawn.stack().train()
        torch.manual_seed(1)
        beside: dict[str, Any] = context_for(stack, 2)
        if masked:
            beside["mask"] = torch.arange(6) < torch.tensor([[6], [4]])
        if saved and not whole:
            checkpointed(stack)
        torch.manual_seed(2)
        out = checkpoint(stack, x, use_reentrant=False, **beside) if saved and whole else stack(x, **beside)
        out.pow(2).sum().backward()
        gradients.append([x.grad, *(parameter.grad for parameter in stack.parameters())])
        x.grad = None
    for ours, theirs in zip(*gradients, strict=True):
        close(ours, theirs, 1e-9)
