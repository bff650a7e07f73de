"""A key and a value of zeros: exp(score) over 1 + the sum of the row's, so that a head can attend to nothing.

As a sink whose logit stays at zero: the zero key has a score of zero whatever the query, and no position biases it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .softmax import Softmax, no_rows
from .spec import FlexForm, Modifier, TileStep


def zero_kv(o: Any) -> Modifier:
    """The option `add_zero_kv`, of an attention block's options."""
    return ZeroKeySoftmax()


class ZeroKeySoftmax(Softmax):
    """The softmax of a row and one more score, zero, whose weight is left out; its gradient is the softmax's."""

    name = "zero key-value"
    in_flex = True

    def apply(self, x: Tensor) -> Tensor:
        return F.pad(x, (1, 0)).softmax(dim=-1)[..., 1:]

    def tile(self, x: Tensor, step: TileStep) -> Tensor:
        share = x.logsumexp(dim=-1, keepdim=True).sigmoid()
        weights = no_rows(x.softmax(dim=-1), step.empty).mul_(share)
        step.save(weights)
        return weights

    def flex(self, q: Tensor) -> FlexForm:
        return FlexForm(output=_output)


def _output(out: Tensor, logsumexp: Tensor) -> Tensor:
    return out * torch.sigmoid(logsumexp)[..., None].to(out.dtype)
