"""What each block is worth to a trained model: the loss without it.

    print(importance(model, tokens))

A block, or a read, that is left out lets the stream pass as it came: its update is zero, and so is what its norms after
the sum, its gates and its mixing of several streams would do. Keys, values and scores that later blocks read of it stay
as they are, which the notes say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from blockdsl.errors import UserError
from blockdsl.measurement import Measurement
from blockdsl.measurements import Measurements
from blockdsl.registry.kinds import kinds

from .. import AutoregressiveWrapper, TransformerWrapper
from ..kernels.tensors import whole_numbers
from ..runtime.evaluation import evaluating
from .seeded import seeded
from .stacks import OneStack, stacks_of

ROWS = 2**14  # tokens that go through the model at once


def next_token_loss(model: nn.Module, tokens: Tensor) -> float:
    """In nats, the mean over all that rows of tokens predict, `tokens: (rows, seq + 1)` int64.

    Raises:
        TypeError: they are no tensor.
        ValueError: they are of another shape or type.
    """
    tokens = whole_numbers("tokens", tokens, " (rows, seq + 1)")
    if tokens.ndim != 2 or not len(tokens):
        raise ValueError(f"tokens must be (rows, seq + 1), of one row or more, not {tuple(tokens.shape)}")
    wrapper: nn.Module = AutoregressiveWrapper(model) if isinstance(model, TransformerWrapper) else model
    device, total = next(model.parameters()).device, 0.0
    for chunk in torch.split(tokens, max(1, ROWS // max(1, tokens.shape[1] - 1))):
        total += wrapper(chunk.to(device)).item() * len(chunk)
    return total / len(tokens)


def importance(
    model: nn.Module,
    data: Any,
    *,
    loss: Callable[[nn.Module, Any], float | Tensor] = next_token_loss,
    unit: str = "nats",
    note: str = "",
    seed: int = 0,
) -> Measurements:
    """The loss of a model with each of its blocks and reads left out, one at a time; tied blocks by call.

    In evaluation mode and without gradients. Each loss starts from the seed, so that one which draws random numbers
    draws the same for all.

    Args:
        data: what the loss reads; for the default one, (rows, seq + 1) int64 tokens of a language model.
        loss: `loss(model, data)`, a number.
        unit: of the loss.
        note: what it is of, for the legend.

    Returns:
        by node `difference`, how much more the loss is without it, and `loss`, without it. Facts: the `whole` model's.

    Raises:
        TypeError: it is no model.
        UserError: the model has no stack, or a loss is not a finite number.
    """
    stacks, device = stacks_of(model), next(model.parameters()).device

    def found(of: str) -> float:
        with seeded(seed, device):
            value = loss(model, data)
        if isinstance(value, Tensor) and value.numel() != 1:
            raise UserError(f"loss(model, data) must be a number, not a tensor {tuple(value.shape)}")
        value = float(value)
        if not isfinite(value):
            raise UserError(f"the loss {of} is {value}")
        return value

    losses: dict[str, float] = {}
    with evaluating(model):
        whole = found("of the whole model")
        for one in stacks:
            for node, (module, call) in one.by_node().items():
                with left_out(one, module, call):
                    losses[node] = found(f"without {node}")
    graphs = {one.prefix.removesuffix("."): one.graph for one in stacks}
    more = {node: value - whole for node, value in losses.items()}
    by_name = {
        "difference": Measurement("loss without the block, minus that of the whole model", unit, more, note),
        "loss": Measurement("loss without the block", unit, losses, note, digits=5),
    }
    notes = {node: said for one in stacks for node, said in _notes(one)}
    summary = (*([note] if note else []), f"the loss of the whole model is {whole:.5g} {unit}")
    return Measurements(graphs, by_name, {"whole": whole}, summary, notes)


@contextmanager
def left_out(one: OneStack, module: nn.Module, call: int) -> Iterator[None]:
    """Inside, the stream passes a block or a read as it came, in its call of this number of each pass of its stack."""
    calls = 0

    def starts(stack: nn.Module, args: Any) -> None:
        nonlocal calls
        calls = 0

    def passes(module: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls - 1 != call:
            return None
        x, update = args[0], torch.zeros_like(out[1])
        return out._replace(stream=x, update=update) if hasattr(out, "_replace") else (x, update)

    handles = [one.stack.register_forward_pre_hook(starts), module.register_forward_hook(passes)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _notes(one: OneStack) -> Iterator[tuple[str, str]]:
    """What is to say of nodes that are more than a sum of the stream and an update."""
    given = {what for kind in kinds().values() for what in kind.gives} | {"scores", "normed"}
    readers: dict[str, dict[str, list[str]]] = {}
    for node in one.graph.nodes("block"):
        for what in sorted(given):
            for source in one.graph.sources(node, what):
                readers.setdefault(source, {}).setdefault(what, []).append(node)
    names = {"kv": "keys and values", "normed": "norm of the stream"}
    for node in one.graph.nodes("block"):
        said = [f"its {names.get(what, what)} stay, for {', '.join(by)}" for what, by in readers.get(node, {}).items()]
        if one.graph.block(node)["options"]["scale_residual_constant"] == 0:
            said.insert(0, "it replaces the stream, which without it passes as it came")
        if said:
            yield one.prefix + node, "; ".join(said)
