"""A call of a model on random inputs of chosen sizes: what its graph says that it reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from blockdsl import BlockGraph
from blockdsl.errors import UserError
from blockdsl.registry.options import whole
from blockdsl.registry.tokens import pair

from .. import AutoregressiveWrapper, TransformerWrapper
from .stacks import graphs_of


@dataclass(frozen=True)
class Call:
    """A call of a module.

    Attributes:
        module: called with `args` and `kwargs`; the model, or a wrapper that makes its loss.
        batch, seq_len, context_len: the sizes of the call, by which FLOPs are counted.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    batch: int = 1
    seq_len: int = 1
    context_len: int = 1

    def loss(self) -> Tensor:
        """What the module returns if that is a number, else the mean of its squares."""
        out = self.module(*self.args, **self.kwargs)
        out = out[0] if isinstance(out, tuple) else out
        return out if out.ndim == 0 else out.float().square().mean()


def example_call(
    model: nn.Module, batch: int = 8, seq_len: int | None = None, context_len: int | None = None, seed: int = 0
) -> Call:
    """A call on random inputs, on the model's device. A language model predicts each next token, as in training.

    Args:
        seq_len: tokens a row; None: 256, or as many as the model reads.
        context_len: of the context, or the source; None: as `seq_len`.

    Raises:
        UserError: a size is out of range, or it is a model of one's own, whose inputs are not known.
    """
    batch = whole("batch", batch, 1)
    device = next(model.parameters()).device
    draw = _Draw(torch.Generator().manual_seed(seed), device, batch)
    graphs = graphs_of(model)
    if {*graphs} == {"encoder", "decoder"}:
        encoder, decoder = graphs["encoder"], graphs["decoder"]
        seq_len = _length(decoder, seq_len, "seq_len")
        context_len = _length(encoder, seq_len if context_len is None else context_len, "context_len")
        condition = _condition(draw, encoder if encoder.nodes("condition") else decoder)
        args = (draw.read(encoder, context_len), draw.read(decoder, seq_len + bool(decoder.reads == "tokens")))
        return Call(model, args, condition, batch, seq_len, context_len)
    if {*graphs} != {""}:
        raise UserError(f"the model has the stacks {', '.join(graphs)}: call profile with what it reads")
    graph = graphs[""]
    seq_len = _length(graph, seq_len, "seq_len")
    context_len = seq_len if context_len is None else whole("context_len", context_len, 1)
    kwargs = _condition(draw, graph)
    if graph.nodes("context"):
        kwargs["context"] = draw.vectors(context_len, graph.dim_context)
    if graph.reads is None and graph.value_embeds:
        kwargs["value_embeds"] = {n: draw.vectors(seq_len, size) for n, size in graph.value_embeds.items()}
    predicts = isinstance(model, TransformerWrapper) and graph.causal
    if predicts and model.pool is None and graph.nx.nodes[graph.end]["logits_dim"] == model.num_tokens:
        wrapper = AutoregressiveWrapper(model)
        return Call(wrapper, (draw.read(graph, seq_len + 1),), kwargs, batch, seq_len, context_len)
    return Call(model, (draw.read(graph, seq_len),), kwargs, batch, seq_len, context_len)


@dataclass(frozen=True)
class _Draw:
    generator: torch.Generator
    device: torch.device
    batch: int

    def vectors(self, *shape: int) -> Tensor:
        drawn = torch.randn(self.batch, *shape, generator=self.generator, dtype=torch.float32, device="cpu")
        return drawn.to(self.device).requires_grad_()  # a layer before it would want its gradient

    def read(self, graph: BlockGraph, seq_len: int) -> Tensor:
        """Tokens, vectors or images, as the graph's input reads them."""
        start = graph.nx.nodes[graph.start]
        if graph.reads == "tokens":
            shape = (self.batch, seq_len)
            drawn = torch.randint(start["num_tokens"], shape, generator=self.generator, dtype=torch.int64, device="cpu")
            return drawn.to(self.device)
        if graph.reads == "images":
            return self.vectors(start["channels"], *pair(start["image_size"])).detach()
        return self.vectors(seq_len, start["dim_in"] or graph.dim if graph.reads == "vectors" else graph.dim)


def _condition(draw: _Draw, graph: BlockGraph) -> dict[str, Any]:
    return {"condition": draw.vectors(graph.condition[0])} if graph.nodes("condition") else {}


def _length(graph: BlockGraph, seq_len: int | None, name: str) -> int:
    longest = graph.nx.nodes[graph.start]["max_seq_len"]
    if graph.reads == "images":
        return graph.patches
    if seq_len is None:
        return min(256, longest or 256)
    if longest and whole(name, seq_len, 1) > longest:
        raise UserError(f"{name}={seq_len:,} is more than max_seq_len={longest:,}")
    return whole(name, seq_len, 1)
