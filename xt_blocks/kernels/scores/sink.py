"""Attention sinks: a learned logit of each head takes a share of its softmax (gpt-oss, arXiv:2508.10925).

So a head can attend to nothing: the weights of a row add up to less than one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .softmax import no_rows, row_sums
from .spec import FlexForm, Modifier, ScoreStage, TileStep


class Sink(nn.Module):
    """The option `sink`: its logits are those of one more key, which all queries see.

    Args:
        o: the options of an attention block.
    """

    def __init__(self, o: Any) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(o.heads))

    def forward(self) -> tuple[Modifier, ...]:
        return (SinkSoftmax(self.logits),)


@dataclass(frozen=True, eq=False)
class SinkSoftmax(Modifier):
    """exp(score) over the sum of the row's and exp(logit).

    Args:
        logits: (heads,)
    """

    logits: Tensor

    name = "sink"
    stage = ScoreStage.SOFTMAX
    in_flex = True

    def apply(self, x: Tensor) -> Tensor:
        sink = self.logits.to(x.dtype)[:, None, None].expand(x.shape[0], -1, x.shape[2], 1)
        return torch.cat((x, sink), dim=-1).softmax(dim=-1)[..., :-1]

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.logits,)

    def tile(self, x: Tensor, step: TileStep) -> Tensor:
        above = x.logsumexp(dim=-1, keepdim=True) - step.tensors[0][step.heads, None, None]
        weights = no_rows(x.softmax(dim=-1), step.empty).mul_(above.sigmoid())
        step.save(weights, (-above).sigmoid())
        return weights

    def tile_gradient(self, grad: Tensor, step: TileStep) -> Tensor:
        (weights, of_sink), (of_logits,) = step.saved, step.gradients
        sums = row_sums(grad, weights, step)
        if of_logits is not None:
            of_logits[step.heads] -= (of_sink * sums).sum(dim=(1, 2))
        return grad.sub_(sums).mul_(weights)

    def flex(self, q: Tensor) -> FlexForm:
        def output(out: Tensor, logsumexp: Tensor) -> Tensor:
            share = (logsumexp - self.logits.to(logsumexp.dtype)[:, None]).sigmoid()
            return out * share[..., None].to(out.dtype)

        return FlexForm(output=output)
