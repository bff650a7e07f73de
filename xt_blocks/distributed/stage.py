"""One pipeline stage: the model with some consecutive steps of its stack, and what crosses the cuts around it.

A stage is the same model, with the same names, that lacks the modules of other stages. All of them are given the tokens
and their mask, which every rank has, so what crosses a cut is only what is computed: the stream, and whatever else
later blocks read. Owns what a stage computes; leaves when it computes to `pipeline`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..blocks.norms import norm
from ..generation.autoregressive import AutoregressiveWrapper
from ..generation.seq2seq import XTransformer
from ..kernels.batch_rows import BatchRows, rows_of_batch
from ..kernels.cross_entropy import Target
from ..models.transformer import TransformerWrapper
from ..runtime.auxiliary import auxiliary_losses
from ..runtime.context import ForwardContext
from ..runtime.recompute import parts_of
from ..runtime.seeds import seed_for
from ..runtime.stack import Stack
from .context import GatheredCache

LOSSES = "losses"
"""Beside the values of nodes, what blocks have added to the loss so far, by name."""


class StageStack(Stack):
    """A stack that runs some of its steps.

    Args:
        nodes: its blocks, sums and reads; consecutive.
        beside: the positions that they read.

    Attributes:
        received: what the stage before gave; set before a pass.
        sent: what this one gives; there after a pass, unless it is the last.
    """

    def __init__(self, graph: Any, blocks: Mapping[str, nn.Module], nodes: Collection[str], beside: Collection[str]):
        super().__init__(graph, blocks)
        own = [step for step in self.plan if step.node in nodes or (step.node == graph.end and self._ends(nodes))]
        self.is_first, self.is_last = own[0] is self.plan[0], own[-1] is self.plan[-1]
        self.parts = parts_of(own)
        self.received: dict[str, Any] = {}
        self.sent: dict[str, Any] = {}
        tables = {step.value_embed for step in own}
        own_tables = {number: size for number, size in self.reads.value_embeds.items() if number in tables}
        self.reads = replace(self.reads, value_embeds=own_tables)
        joins = {step.join for step in own}
        for name in [*self.joins]:
            if name not in joins:
                del self.joins[name]
        for name in [*self.positions]:
            if name not in beside:
                del self.positions[name]
        if not self.is_first:
            self.injection = None
        if not self.is_last:
            self.norm, self.softcap = norm(None, self.dim), None

    def _ends(self, nodes: Collection[str]) -> bool:
        """Whether these are the last steps but for a sum at the output."""
        return len(self.plan) > 1 and self.plan[-2].node in nodes

    def _walk(self, x: Tensor, ctx: ForwardContext) -> Tensor:
        if self.is_first and self.is_last:
            return super()._walk(x, ctx)
        if self.is_first:
            self._begin(x, ctx)
        else:
            ctx.values |= self.received
        self._run_parts(ctx)
        if self.is_last:
            return self._ended(ctx)
        self.sent = dict(ctx.values)
        return x


class StageModel(TransformerWrapper):
    """A language model with the modules of one stage.

    Attributes:
        earlier: what it reads of tokens that other ranks have; None: it has whole rows. Set before a pass.
    """

    attn_layers: StageStack

    def __init__(self, stack: StageStack, options: Mapping[str, Any]) -> None:
        super().__init__(attn_layers=stack, **options)
        self.earlier: GatheredCache | None = None
        for number in [*self.value_emb]:
            if int(number) not in stack.reads.value_embeds:
                del self.value_emb[number]
        if not stack.is_first:
            kept = self.token_emb if stack.is_last and self.tie_embedding else None
            self.token_emb, self.pos_emb, self.token_type_emb = kept, None, None  # type: ignore[assignment]
            self.post_emb_norm, self.project_emb = nn.Identity(), nn.Identity()
            if self.memory_tokens is not None:  # places of the stream, whose values the first stage makes
                memory = torch.zeros_like(self.memory_tokens)
                del self.memory_tokens
                self.register_buffer("memory_tokens", memory, persistent=False)
        if not stack.is_last:
            self.to_logits = self.logits_transform = self.logits_bias = None

    def forward(self, x: Tensor, mask: Tensor | None = None, **inputs: Any) -> Any:  # type: ignore[override]
        if self.earlier is not None:
            inputs["cache"] = self.earlier
        return super().forward(x, mask, **inputs)

    with_target = (forward,)

    def _embedded(self, x: Tensor, *further: Any) -> Tensor:
        if self.attn_layers.is_first:
            return super()._embedded(x, *further)
        return torch.zeros(*x.shape, self.dim, device=x.device, dtype=self._dtype())

    def _projected(self, embedded: Tensor) -> Tensor:
        return super()._projected(embedded) if self.attn_layers.is_first else embedded

    def _dtype(self) -> torch.dtype:
        values = self.attn_layers.received.values()
        return next((value.dtype for value in values if isinstance(value, Tensor)), torch.get_default_dtype())

    def _outputs(self, hidden: Tensor) -> Tensor:
        return super()._outputs(hidden) if self.attn_layers.is_last else hidden

    def _loss(self, hidden: Tensor, target: Target) -> Tensor:
        if self.attn_layers.is_last:
            return super()._loss(hidden, target)
        return torch.zeros((), device=hidden.device, dtype=torch.float32)


class SummedLoss(AutoregressiveWrapper):
    """The sum over targets, of which there may be none."""

    net: StageModel

    def _wanted(self, target: Tensor) -> Target:
        return super()._wanted(target)._replace(reduction="sum")


class SummedPair(XTransformer):
    """An encoder, and a decoder whose loss is the sum over targets."""

    wrapper_class = SummedLoss
    decoder: SummedLoss


class StageLoss(nn.Module):
    """A stage's part of the loss of some rows; the outermost module on a rank.

    Args:
        net: the stage's model, of the text that is predicted.
        encoder: of what that text is written from; None: it is of nothing but itself.
        tied: one embedding serves both.

    Attributes:
        wrapper: both, or the model alone.
        along: the ranks that have other tokens of the same rows; None: there are none.
        autocast: a context of its passes.
        scale: factor of the objective.
        total: the sum of a tensor over all ranks that have rows of a batch.
        seed: of what is dropped; None: torch's random numbers are drawn.
        found: of each pass of a last stage, the weighted cross-entropy, under "", and what blocks added, by name.
        layout: of what it sends; None: not known yet.
        source: that of what it receives.
    """

    def __init__(
        self,
        net: StageModel,
        autocast: Callable[[], Any],
        scale: float,
        total: Callable[[Tensor], Tensor],
        along: dist.ProcessGroup | None = None,
        encoder: Any = None,
        tied: bool = False,
    ) -> None:
        super().__init__()
        self.wrapper: SummedLoss | SummedPair = SummedLoss(net)
        if encoder is not None:
            self.wrapper = SummedPair.from_models(encoder, net, tie_token_emb=tied)
        self.autocast, self.scale, self.total, self.along = autocast, scale, total, along
        self.seed: int | None = None
        self.found: list[dict[str, Tensor]] = []
        self.layout: CutLayout | None = None
        self.source: CutLayout | None = None

    @property
    def writer(self) -> SummedLoss:
        """What predicts the text."""
        return self.wrapper.decoder if isinstance(self.wrapper, SummedPair) else self.wrapper

    @property
    def model(self) -> nn.Module:
        """What has the names of one process."""
        return self.wrapper if isinstance(self.wrapper, SummedPair) else self.wrapper.net

    @property
    def stack(self) -> StageStack:
        return self.writer.net.attn_layers

    def forward(
        self,
        *received: Tensor,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        mask_before: Tensor | None = None,
        weight: Tensor | None = None,
        share: Tensor | None = None,
        places: Tensor | None = None,
        source: Tensor | None = None,
        source_mask: Tensor | None = None,
        source_share: Tensor | None = None,
        call: Callable[[Any], Any] | None = None,
    ) -> Any:
        """
        Args:
            received: what crosses the cut before it.
            tokens: (rows, seq + 1) int.
            mask: (rows, seq + 1) bool.
            mask_before: (rows, earlier) bool, that of the tokens that ranks before have.
            weight: (1,) a target's part of those of the batch.
            share: (1,) the part of the batch's tokens that these are.
            places: (rows,) int, their places in the batch, on the CPU; -1 of one that does not count.
            source: what the encoder reads of each row, (rows, ...).
            source_mask: (rows, source) bool.
            source_share: (1,) the part of the batch's source that this is.
            call: what to do with the wrapper in place of a loss, while its parameters are here.

        Returns:
            what crosses the cut after it, a tuple of tensors; of the last stage, the objective.
        """
        if call is not None:
            return call(self.wrapper)
        assert tokens is not None
        assert weight is not None
        assert share is not None
        values = {} if self.source is None else self.source.join(received)
        earlier: dict[str, Tensor] = values.pop(LOSSES, {})
        self.stack.received = values
        rows, seq = tokens.shape[0], tokens.shape[1] - 1
        if self.along is not None:
            self.writer.net.earlier = GatheredCache(self.along, rows, seq, self.stack.kept, mask_before)
        read, of_source = self._encoded(source, source_mask, places)
        with auxiliary_losses() as further, self.autocast(), rows_of_batch(self._rows(places, seq)):
            loss = self.writer(tokens, mask=mask, **read)
        self.writer.net.earlier = None
        own = further.by_name()
        names = (own | earlier) if self.layout is None else self.layout.losses
        zero = torch.zeros((), device=tokens.device, dtype=torch.float32, requires_grad=torch.is_grad_enabled()) * 1.0
        added = {name: earlier.get(name, zero) + own.get(name, zero) for name in names}
        if not self.stack.is_last:
            sent = {**self.stack.sent, LOSSES: added}
            self.stack.received, self.stack.sent = {}, {}
            self.layout = self.layout or CutLayout(sent)
            return self.layout.split(sent)
        self.stack.received = {}
        parts = {"": (loss - sum(own.values()) if own else loss) * weight[0]}
        parts |= {name: value * share[0] for name, value in added.items()}
        for name, value in of_source.items():
            assert source_share is not None
            parts[name] = parts.get(name, zero) + value * source_share[0]
        self.found.append({name: value.detach() for name, value in parts.items()})
        return sum(parts.values()) * self.scale

    def passed(self, received: dict[str, Any], tokens: Tensor) -> Any:
        """What the stage sends of `tokens: (batch, seq)`, or the last one's logits, on the CPU; without gradients."""

        def run(wrapper: SummedLoss) -> Any:
            self.stack.received = _mapped(received, lambda value: _moved(value, tokens.device))
            with self.autocast():
                logits = wrapper.net(tokens)
            found, self.stack.received, self.stack.sent = self.stack.sent, {}, {}
            return _mapped(logits if self.stack.is_last else found, lambda value: _moved(value, "cpu"))

        with torch.no_grad():
            return self(call=run)

    def _encoded(
        self, source: Tensor | None, mask: Tensor | None, places: Tensor | None
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What the text's model reads of the source, and what the encoder's blocks add to the loss, by name."""
        if not isinstance(self.wrapper, SummedPair):
            return {}, {}
        assert source is not None
        rows = self._rows(places, 0)
        if rows is not None and self.seed is not None:
            rows.seed = seed_for("encoder", self.seed)  # its blocks have the names of the decoder's
        with auxiliary_losses() as further, self.autocast(), rows_of_batch(rows):
            context, context_mask = self.wrapper.encode(source, mask)
        return {"context": context, "context_mask": context_mask}, further.by_name()

    def _rows(self, places: Tensor | None, seq: int) -> BatchRows | None:
        if places is None:
            return None
        numbers = places.tolist()
        counts = any(place >= 0 for place in numbers)
        tokens = None
        if self.along is not None:
            start = self.along.rank() * seq
            tokens = slice(start, start + seq), self.along.size() * seq
        return BatchRows(numbers, self.seed, self.total if counts else self._total_of_others, tokens)

    def _total_of_others(self, counts: Tensor) -> Tensor:
        """Of a pass none of whose rows count."""
        return self.total(torch.zeros_like(counts))


class CutLayout:
    """How the values that cross a cut lie in a list of tensors; the same for all micro-batches of a shape.

    Attributes:
        shapes: those of the tensors that are sent, with their types.
        places: the values, with each tensor's place in the list for it.
        losses: the names of what blocks have added to the loss so far.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self.shapes: list[tuple[tuple[int, ...], torch.dtype]] = []
        self.places: dict[str, Any] = _mapped(values, self._place)
        self.losses = tuple(values[LOSSES])

    def _place(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        self.shapes.append((tuple(value.shape), value.dtype))
        return _Place(len(self.shapes) - 1)

    def split(self, values: dict[str, Any]) -> tuple[Tensor, ...]:
        """The tensors, each a result of the pass and no view, as schedules cut them off where they are sent."""
        found: list[Tensor] = []
        _mapped(values, lambda value: found.append(_sent(value)) if isinstance(value, Tensor) else None)
        return tuple(found)

    def join(self, tensors: Sequence[Tensor]) -> dict[str, Any]:
        """The values again."""
        values: dict[str, Any] = _mapped(
            self.places, lambda value: _sent(tensors[value.index]) if isinstance(value, _Place) else value
        )
        return values

    def like(self, device: torch.device | str, gradients: bool = False) -> tuple[Tensor, ...]:
        """Zeros of these shapes and types; with `gradients`, those that can have one say so."""
        return tuple(
            torch.zeros(shape, device=device, dtype=dtype, requires_grad=gradients and dtype.is_floating_point)
            for shape, dtype in self.shapes
        )


@dataclass(frozen=True)
class _Place:
    index: int


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """A value with the function's results in place of all that is no dictionary and no tuple in it."""
    if isinstance(value, dict):
        return {name: _mapped(each, function) for name, each in value.items()}
    if isinstance(value, tuple):
        items = [_mapped(each, function) for each in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return function(value)


def _moved(value: Any, device: torch.device | str) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def _sent(x: Tensor) -> Tensor:
    copy: Tensor = _Sent.apply(x)  # type: ignore[no-untyped-call]
    return copy


class _Sent(torch.autograd.Function):
    """What is sent has to be contiguous, values and gradients alike."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone(memory_format=torch.contiguous_format)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.contiguous()
