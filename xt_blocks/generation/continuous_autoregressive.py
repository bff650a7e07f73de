"""Next-vector training and generation around a ContinuousTransformerWrapper."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.registry.keywords import spells
from blockdsl.registry.options import whole

from ..kernels.compat import uncompiled
from ..kernels.masks import check_mask
from ..kernels.tensors import check_tensor
from ..models.continuous import ContinuousTransformerWrapper
from ..models.inputs import ContextInputs, PrefixedInputs
from ..models.keywords import keywords_of, names_nearest
from ..runtime.auxiliary import auxiliary_losses
from ..runtime.drawn import Drawn
from .decoding import Stream
from .prompts import Prompts
from .steps import decoding_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

LossFn = Callable[[Tensor, Tensor], Tensor]


class ContinuousAutoregressiveWrapper(Drawn, nn.Module):
    """Trains a causal model on the next vector, and generates with it.

    Args:
        net: the model; its stack is causal, and its outputs have the features of its inputs.
        ignore_index, pad_value: of AutoregressiveWrapper's arguments; a vector has no index to ignore and a mask hides
            padding, so anything but the default is refused.
        loss_fn: predictions and targets, both (batch, seq, dim), → their loss, number by number or vector by vector:
            (batch, seq, dim) or (batch, seq). None: the squared difference.

    Raises:
        TypeError: net is not a model over vectors.
        ValueError: it is not causal, or its outputs have other features than its inputs.
    """

    @names_nearest
    def __init__(
        self,
        net: ContinuousTransformerWrapper,
        ignore_index: int = -100,
        pad_value: float = 0,
        loss_fn: LossFn | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(uncompiled(net), ContinuousTransformerWrapper):
            raise TypeError(f"net must be a ContinuousTransformerWrapper, not {type(net).__name__}")
        if reason := net.graph.sees_later():
            raise ValueError(f"the model sees later vectors: {reason}; a Decoder is causal, as is causal=True")
        if net.dim_in != net.dim_out:
            features = f"outputs have {net.dim_out} features and its inputs {net.dim_in}"
            raise ValueError(f"the model's {features}; they must agree")
        if ignore_index != -100 or pad_value != 0:
            name = "ignore_index" if ignore_index != -100 else "pad_value"
            raise ValueError(f"{name} has no meaning for vectors: hide padding with mask=")
        self.net = net
        self.loss_fn = loss_fn
        self.max_seq_len = net.max_seq_len

    @names_nearest
    @spells(keywords_of(PrefixedInputs))
    def forward(self, x: Tensor, mask: Tensor | None = None, **inputs: Unpack[PrefixedInputs]) -> Tensor:
        """Mean loss of each vector's prediction from those before it; in training with what its blocks add.

        Args:
            x: (batch, seq + 1, dim), seq at least 1; the model sees the first seq and predicts the last seq.
            mask: (batch, seq + 1) bool, True = a real vector. Padding is not seen, and nothing is predicted from it;
                what follows a row's last real vector is a target, as in x-transformers, so that a model
                can learn how a sequence ends.
            inputs: context, context_mask, condition, prepend_embeds, prepend_mask, as the model takes them; nothing is
                predicted from prepended embeddings.

        Raises:
            ValueError: an argument or what loss_fn gives has a wrong shape.
        """
        check_tensor("x", x)
        if x.ndim != 3 or x.shape[1] < 2:
            raise ValueError(f"x must be (batch, 2 or more, {self.net.dim_in}), not {tuple(x.shape)}")
        check_mask("mask", mask, x)
        x = self.net.checked_sequence(x)
        seen, target = x[:, :-1], x[:, 1:]
        mask = None if mask is None else mask[:, :-1]
        with auxiliary_losses() as further:
            out = self.net(seen, mask=mask, **inputs)[:, -seen.shape[1] :]
        losses = F.mse_loss(out, target, reduction="none") if self.loss_fn is None else self.loss_fn(out, target)
        if losses.shape not in (target.shape, target.shape[:2]):
            raise ValueError(f"loss_fn must give losses {tuple(target.shape)}, not {tuple(losses.shape)}")
        losses = losses if losses.ndim == 2 else losses.mean(dim=-1)
        mean = losses.mean() if mask is None else losses.where(mask, 0.0).sum() / mask.sum().clamp(min=1)
        return further.added_to(mean)

    @names_nearest
    @spells(keywords_of(ContextInputs))
    def generate(self, start: Tensor, seq_len: int, cache_kv: bool = True, **context: Unpack[ContextInputs]) -> Tensor:
        """Vectors that go on from a start.

        Past max_seq_len the window slides: the model sees the last max_seq_len vectors, as it was trained to, unless a
        cache that does not grow holds all that it needs, as in `AutoregressiveWrapper.generate`.

        Args:
            start: (batch, n, dim), or (n, dim) for one row; n at least 1.
            seq_len: how many vectors to add.
            cache_kv: keep keys and values between steps; the vectors are the same without.
            context: context, context_mask, for the model's cross-attention; condition, for its adaptive norms, of rows
                or (batch, n + seq_len, dim_condition).

        Returns:
            (batch, seq_len, dim) new vectors, or (seq_len, dim).

        Raises:
            ValueError: the start is empty or of another shape, or seq_len is negative.
        """
        check_tensor("start", start)
        if start.ndim not in (2, 3) or start.shape[-2] == 0:
            dim = self.net.dim_in
            raise ValueError(f"start must be (n, {dim}) or (batch, n, {dim}), n at least 1, not {tuple(start.shape)}")
        seq_len = whole("seq_len", seq_len)
        vectors = self.net.checked_sequence(start.detach() if start.ndim == 3 else start.detach()[None])
        rows = Prompts(vectors, single=start.ndim == 2)
        decoding = decoding_of(self.net, rows, seq_len, cache_kv, compiled=False, read=context)
        return Stream(self.net, rows, decoding, seq_len).collect()
