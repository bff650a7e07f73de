"""Experts: feedforwards of which each token reads the few that a router chooses (arXiv:1701.06538).

No token is dropped, however many choose the same expert. Tokens are sorted by expert, so that each expert is one matrix
product (arXiv:2211.15841), and work grows with the experts that a token reads, not with those that there are. Padding
reads none: it takes part in no loss and no statistics.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.registry.builtin.experts import EXPERTS, shared_options
from blockdsl.registry.keywords import parameters, spells
from blockdsl.registry.options import by_name

from ..kernels import compat
from ..kernels.activations import ACTIVATIONS
from ..kernels.batch_rows import draws_by_row, total_of_batch
from ..kernels.grouped import chosen_linear, grouped_linear, reads_by_number, reads_chosen
from ..kernels.hooks import unhooked
from .dropout import FeatureDropout
from .feedforward import FeedForward
from .init import xavier
from .layer_output import LayerOutput
from .linear import apply
from .part import LayerPart

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from blockdsl.signatures import ExpertsOptions


class Experts(nn.Module):
    """A mixture of feedforwards.

    Args:
        dim: features of the stream.
        options: of the block kind `e`: experts, top, inner, router, ...; see `blockdsl.registry.builtin.experts`.

    Raises:
        TypeError: an unknown option; the message names the nearest one.
        ValueError: a value out of range, or options that clash.
    """

    @spells(parameters(by_name(EXPERTS.options)))
    def __init__(self, dim: int, **options: Unpack[ExpertsOptions]) -> None:
        super().__init__()
        o = EXPERTS.complete(dim, options, f"{type(self).__name__}()")
        self.experts, self.top = o.experts, o.top
        self.glu, self.gate_first, self.activation = o.glu, o.gate_first, o.activation
        self.glu_limit, self.glu_offset = o.glu_limit, o.glu_offset
        self.balance_loss, self.z_loss = o.balance_loss, o.z_loss
        self.router = Router(dim, o)
        self.to_hidden = ExpertLinear(o.experts, dim, o.inner * (2 if o.glu else 1), not o.no_bias)
        self.dropout = FeatureDropout(o.dropout)
        self.to_out = ExpertLinear(o.experts, o.inner, dim, not o.no_bias)
        self.shared = None if o.shared_inner is None else FeedForward(dim, **shared_options(o))  # type: ignore[arg-type]
        self.shared_gate = nn.Linear(dim, 1, bias=False) if o.shared_gate else None
        self.zero_init = o.zero_init_branch_output
        if self.zero_init:
            for parameter in self.to_out.parameters():
                nn.init.zeros_(parameter)

    def take_part(self, part: LayerPart) -> None:
        """Draw for all hidden features, of which these are a part, what is dropped."""
        self.dropout.part = part

    def init_xavier(self, gain: float) -> None:
        """Xavier normal weights of the experts with this gain, biases zero; those that start at zero stay zero."""
        for linear in (self.to_hidden,) if self.zero_init else (self.to_hidden, self.to_out):
            for weight in linear.weight:
                xavier(weight, gain=gain)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        if self.shared is not None:
            self.shared.init_xavier(gain)

    def forward(self, x: Tensor, mask: Tensor | None = None, observed: bool = False) -> Tensor | LayerOutput:
        """
        Args:
            x: (batch, seq, dim)
            mask: (batch, seq) bool, True = a real token.
            observed: return statistics: `expert_load`, (experts,), the share of the choices that fell on each.

        Returns:
            (batch, seq, dim); in training the losses `balance` and `router_z` beside it, where they count.
        """
        tokens = x.reshape(-1, x.shape[-1])
        real = None if mask is None else mask.reshape(-1)
        choice: Choice = self.router(tokens)
        out = self._weighted_sum(tokens, real, choice, x.shape[0]).view(x.shape)
        if self.shared is not None:
            shared = self.shared(x)
            out = out + (shared if self.shared_gate is None else apply(self.shared_gate, x).sigmoid() * shared)
        return self._with_losses(out, real, choice, observed)

    def _weighted_sum(self, x: Tensor, real: Tensor | None, choice: Choice, batch: int) -> Tensor:
        """The weighted sum of what the chosen experts make of each token: `x: (batch · seq, dim)` → the same."""
        plain = all(type(linear) is ExpertLinear and unhooked(linear) for linear in (self.to_hidden, self.to_out))
        if x.shape[0] == 1 and real is None and plain and reads_by_number(x):
            return self._of_one(x, choice)
        weights, expert = choice.weights, choice.experts.flatten()
        if real is not None:
            weights = weights.masked_fill(~real[:, None], 0.0)
        if reads_chosen(x, expert.shape[0]):  # len() of a tensor would fix its size in an export
            rows = ExpertRows(torch.arange(expert.shape[0], device=x.device, dtype=torch.int64), expert, None)
        else:
            beyond = expert if real is None else expert.masked_fill(~real.repeat_interleave(self.top), self.experts)
            rows = ExpertRows.sorted(beyond, self.experts)
        token = rows.order // self.top
        hidden = self._activated(self.to_hidden(x.index_select(0, token), rows))
        if self.dropout.training:
            hidden = self._dropped(hidden, rows.order, batch)
        made = self.to_out(hidden, rows) * weights.flatten()[rows.order, None].to(hidden.dtype)
        return made.new_zeros(x.shape).index_add(0, token, made).to(x.dtype)

    def _dropped(self, hidden: Tensor, order: Tensor, batch: int) -> Tensor:
        """`hidden: (rows, inner)`, in the order of experts, with dropout that is drawn in the order of tokens."""
        if not draws_by_row():
            dropped: Tensor = self.dropout(hidden)
            return dropped
        shape = (batch, len(order) // (batch * self.top), self.top, hidden.shape[-1])
        return hidden * self.dropout.factors(shape, hidden).flatten(0, 2).index_select(0, order)

    def _of_one(self, x: Tensor, choice: Choice) -> Tensor:
        """The same of one token without gradients, as in decoding: nothing to sort."""
        out = torch.zeros_like(x)
        for expert, weight in zip(choice.experts[0].tolist(), choice.weights[0].unbind(), strict=True):
            hidden = self._activated(F.linear(x, *self.to_hidden.of(expert)))
            out.addcmul_(F.linear(hidden, *self.to_out.of(expert)), weight.to(x.dtype))
        return out

    def _activated(self, hidden: Tensor) -> Tensor:
        """`hidden: (rows, hidden)` → (rows, inner)"""
        activation = ACTIVATIONS[self.activation]
        if not self.glu:
            return activation(hidden)
        value, gate = hidden.chunk(2, dim=-1)
        if self.gate_first:
            value, gate = gate, value
        if self.glu_limit is not None:
            value, gate = value.clamp(-self.glu_limit, self.glu_limit), gate.clamp(max=self.glu_limit)
        return (value + self.glu_offset if self.glu_offset else value) * activation(gate)

    def _with_losses(self, out: Tensor, real: Tensor | None, choice: Choice, observed: bool) -> Tensor | LayerOutput:
        """The update, with the losses of training and statistics where there are any."""
        trains = self.training and torch.is_grad_enabled()
        counted = observed or (trains and (self.balance_loss or self.router.correction is not None))
        load = total_of_batch(choice.load(real, self.experts)) if counted else None  # (experts,)
        losses, statistics = {}, None
        if trains:
            if load is not None:
                self.router.count(load)
            if self.balance_loss and load is not None:
                share = load / load.sum().clamp(min=1)
                losses["balance"] = (
                    self.balance_loss * self.experts * (share * self.router.mean_share(choice, real)).sum()
                )
            if self.z_loss:
                losses["router_z"] = self.z_loss * _mean(choice.logits.logsumexp(dim=-1).square(), real)
        if observed and load is not None:
            statistics = {"expert_load": load / load.sum().clamp(min=1)}
        return LayerOutput(out, None, losses, statistics) if losses or statistics else out


class Choice(NamedTuple):
    """Which experts the tokens read.

    Attributes:
        experts: (tokens, top) int64
        weights: (tokens, top), of what they make of a token.
        logits: (tokens, experts), of all.
    """

    experts: Tensor
    weights: Tensor
    logits: Tensor

    def load(self, real: Tensor | None, experts: int) -> Tensor:
        """(experts,), how often each is chosen by the tokens that `real: (tokens,)` says."""
        ones = torch.ones_like(self.weights) if real is None else real[:, None].expand_as(self.weights)
        counts = self.logits.new_zeros(experts)
        return counts.index_add(0, self.experts.flatten(), ones.reshape(-1).to(counts.dtype))


def _mean(values: Tensor, real: Tensor | None) -> Tensor:
    """Of `values: (tokens, ...)` over the real tokens; 0 if there are none."""
    if real is None:
        return values.mean(dim=0) if len(values) else values.sum(dim=0)
    shape = (-1, *[1] * (values.ndim - 1))
    return values.where(real.view(shape), 0.0).sum(dim=0) / real.sum().clamp(min=1)


class ExpertRows(NamedTuple):
    """The rows that experts read, one for each choice of a token.

    Attributes:
        order: (rows,) int64, which choice each row is, counted token by token.
        expert: (rows,) int64, whose each row is.
        ends: (experts,) int64, where the rows of each end; None: they stand in no order.
    """

    order: Tensor
    expert: Tensor
    ends: Tensor | None

    @classmethod
    def sorted(cls, expert: Tensor, experts: int) -> ExpertRows:
        """By expert; those of `experts` and beyond are nobody's."""
        expert, order = expert.sort(stable=True)
        numbers = torch.arange(experts, device=expert.device, dtype=torch.int64)
        return cls(order, expert, torch.searchsorted(expert, numbers, right=True))


class ExpertLinear(nn.Module):
    """A linear layer of each expert: weight (experts, out, in), bias (experts, out)."""

    def __init__(self, experts: int, in_features: int, out_features: int, bias: bool) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)  # as torch's own linear layers start
        self.weight = nn.Parameter(torch.empty(experts, out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(experts, out_features).uniform_(-bound, bound)) if bias else None

    def of(self, expert: int) -> tuple[Tensor, Tensor | None]:
        """The weight and the bias of one expert."""
        return self.weight[expert], None if self.bias is None else self.bias[expert]

    def forward(self, x: Tensor, rows: ExpertRows) -> Tensor:
        """`x: (rows, in)` → (rows, out)."""
        if rows.ends is None:
            return chosen_linear(x, self.weight, rows.expert, self.bias)
        return grouped_linear(x, self.weight, rows.ends, self.bias)


class Router(nn.Module):
    """Chooses each token's experts, in float32 at least (arXiv:2101.03961).

    With a correction, a bias by which experts are chosen but not weighed moves at each step of an optimiser that
    trains the router, by the load since the last one (arXiv:2408.15664). Each process moves its own.

    Attributes:
        correction: (experts,), that bias.
        load: (experts,), how often each was chosen in training since the last step.
    """

    correction: Tensor | None
    load: Tensor | None

    def __init__(self, dim: int, o: Any) -> None:
        super().__init__()
        bound = 1 / math.sqrt(dim)
        self.weight = nn.Parameter(torch.empty(o.experts, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(o.experts)) if o.router_bias else None
        self.top, self.kind, self.renormalise, self.weight_scale = o.top, o.router, o.renormalise, o.weight_scale
        self.groups, self.top_groups, self.group_best = o.groups, o.top_groups, o.group_best
        self.rate: float | None = o.correction_rate
        none = self.weight.detach().new_zeros(o.experts, dtype=torch.float32)
        self.register_buffer("correction", None if self.rate is None else none)
        self.register_buffer("load", none.clone() if self.rate else None, persistent=False)
        self._join()

    def __setstate__(self, state: dict[str, Any]) -> None:  # of a copy or an unpickled one
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._join()

    def _join(self) -> None:
        if self.rate:
            _follow_steps()
            _MOVING[next(_NUMBERS)] = self

    def forward(self, x: Tensor) -> Choice:
        """`x: (tokens, dim)`"""
        device = x.device.type
        with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
            dtype = torch.promote_types(x.dtype, torch.float32)
            logits = F.linear(x.to(dtype), self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype))
            experts, weights = self._chosen(logits)
        return Choice(experts, weights if self.weight_scale == 1 else weights * self.weight_scale, logits)

    def _chosen(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The experts and their weights, (tokens, top), before the factor."""
        softmax, plain = self.kind == "softmax", self.correction is None and self.groups == 1
        if softmax and plain and self.renormalise:
            highest, experts = logits.topk(self.top, dim=-1)
            return experts, highest.softmax(dim=-1)
        scores = self.scores(logits)
        experts = self._judged(scores).topk(self.top, dim=-1).indices
        if not self.renormalise:
            return experts, scores.gather(-1, experts)
        if softmax:
            return experts, logits.gather(-1, experts).softmax(dim=-1)
        weights = scores.gather(-1, experts)
        return experts, weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)

    def scores(self, logits: Tensor) -> Tensor:
        """Of all experts, from 0 to 1."""
        return logits.softmax(dim=-1) if self.kind == "softmax" else logits.sigmoid()

    def mean_share(self, choice: Choice, real: Tensor | None) -> Tensor:
        """(experts,), the mean of the tokens' scores as shares that sum to 1 (arXiv:2412.19437, equation 19)."""
        scores = self.scores(choice.logits)
        return _mean(scores / scores.sum(dim=-1, keepdim=True), real)

    def _judged(self, scores: Tensor) -> Tensor:
        """What experts are chosen by: scores with the correction, within the best groups. (tokens, experts)"""
        judged = scores.detach()
        if self.correction is not None:
            judged = judged + self.correction
        if self.groups > 1:
            by_group = torch.unflatten(judged, -1, (self.groups, -1))
            best = by_group.topk(self.group_best, dim=-1).values.sum(dim=-1)
            within = torch.zeros_like(best, dtype=torch.bool)
            within = within.scatter(-1, best.topk(self.top_groups, dim=-1).indices, True)
            judged = by_group.masked_fill(~within[..., None], -math.inf).flatten(-2)
        return judged

    def count(self, load: Tensor) -> None:
        """Add what a pass of training has chosen."""
        if self.load is not None:
            self.load += load.detach()

    @torch.no_grad()
    def move(self) -> None:
        """Move the correction by the load since the last time: up for experts with less than their share."""
        if self.load is not None and self.correction is not None and self.rate:
            self.correction += self.rate * (self.load.mean() - self.load).sign()
            self.load.zero_()


_NUMBERS = count()
_MOVING: WeakValueDictionary[int, Router] = WeakValueDictionary()
"""The routers with a correction that moves, in the order in which they were made."""


@cache
def _follow_steps() -> None:
    def stepped(optimiser: Any, *_: Any) -> None:
        if _MOVING:
            trained = {id(p) for group in optimiser.param_groups for p in group["params"]}
            for router in [*_MOVING.values()]:
                if id(router.weight) in trained:
                    router.move()

    compat.after_each_step(stepped)
