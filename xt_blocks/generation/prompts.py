"""What decoding starts with: prompts of one or several lengths, and what a model reads beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..kernels.masks import check_mask
from ..kernels.tensors import check_tensor, check_vectors, whole_numbers
from ..models.transformer import TransformerWrapper

PromptTokens = Tensor | list[Tensor] | tuple[Tensor, ...]
"""(batch, n) tokens, or (n,) for one row, or a list of (n,) of different lengths."""


class Prompts(NamedTuple):
    """Prompts side by side, padded on the left.

    Attributes:
        tokens: (batch, n) int64, or vectors (batch, n, dim).
        mask: (batch, n) bool, True = a real token; None: all are.
        single: whether it was one prompt without a batch axis.
        ragged: whether it was a list of prompts of different lengths.
    """

    tokens: Tensor
    mask: Tensor | None = None
    single: bool = False
    ragged: bool = False


def read_prompts(prompts: PromptTokens, mask: Tensor | None = None) -> Prompts:
    """Prompts from (n,) or (batch, n) tokens with a mask of the same shape, or from a list of (n,) tokens.

    Raises:
        ValueError: a prompt is empty, of another shape or type, or its mask is padded on the right.
        TypeError: neither a tensor nor a list of tensors.
    """
    if isinstance(prompts, (list, tuple)):
        if mask is not None:
            raise ValueError("a list of prompts gets its padding and mask here: give no mask")
        return _side_by_side(prompts)
    if not isinstance(prompts, Tensor):
        raise TypeError(f"prompts must be a tensor or a list of tensors, not {type(prompts).__name__}")
    if prompts.ndim not in (1, 2):
        raise ValueError(f"prompts must be (n,), (batch, n) or a list of (n,), not {tuple(prompts.shape)}")
    prompts = whole_numbers("prompts", prompts)
    single = prompts.ndim == 1
    rows = prompts[None] if single else prompts
    if rows.shape[1] == 0:
        raise ValueError("the prompt is empty: give at least one token")
    if mask is not None:
        check_tensor("mask", mask, rows)
        mask = mask[None] if mask.ndim == 1 else mask
        check_mask("mask", mask, rows)
        if (mask.any(dim=1) & ~mask[:, -1]).any():
            raise ValueError("the mask hides the end of a prompt: pad shorter prompts on the left")
    return Prompts(rows.long(), mask, single)


def _side_by_side(prompts: list[Tensor] | tuple[Tensor, ...]) -> Prompts:
    if not prompts:
        raise ValueError("the list of prompts is empty: give at least one")
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, Tensor):
            raise TypeError(f"prompts must be a tensor or a list of tensors, not a list of {type(prompt).__name__}")
        if prompt.ndim != 1:
            raise ValueError(f"prompt {i} of the list must be (n,), not {tuple(prompt.shape)}")
        if prompt.shape[0] == 0:
            raise ValueError(f"prompt {i} of the list is empty: give at least one token")
        whole_numbers("prompts", prompt)
    longest = max(len(prompt) for prompt in prompts)
    tokens = torch.zeros(len(prompts), longest, dtype=torch.int64, device=prompts[0].device)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        tokens[i, longest - len(prompt) :] = prompt
        mask[i, longest - len(prompt) :] = True
    ragged = any(len(prompt) < longest for prompt in prompts)
    return Prompts(tokens, mask if ragged else None, ragged=ragged)


def check_read(net: TransformerWrapper, prompts: Tensor, read: Mapping[str, Any], new: int) -> None:
    """Raise ValueError if a context or a condition is missing, or an input besides the tokens is wrong.

    Args:
        prompts: (batch, n)
        new: how many tokens are added.
    """
    batch, reads_context = prompts.shape[0], bool(net.graph.nodes("context"))
    if "context" in read and not reads_context:
        raise ValueError("a context is given, but the model has no cross-attention")
    beside = (("context", "context_mask", net.graph.dim_context), ("prepend_embeds", "prepend_mask", net.graph.emb_dim))
    for name, mask_name, dim in beside:
        value = read.get(name)
        if value is None:
            if mask_name in read:
                raise ValueError(f"{mask_name} is given, but no {name}")
            continue
        check_vectors(name, value, prompts)
        if value.ndim != 3 or value.shape[::2] != (batch, dim):
            raise ValueError(f"{name} must be ({batch}, seq, {dim}), not {tuple(value.shape)}")
        check_mask(mask_name, read.get(mask_name), value)
    if reads_context and "context" not in read:
        raise ValueError("the model has cross-attention: give context=")
    _check_condition(net, read.get("condition"), prompts, new)


def _check_condition(net: TransformerWrapper, condition: Tensor | None, prompts: Tensor, new: int) -> None:
    (batch, length), (dim, _) = prompts.shape, net.graph.condition
    if condition is None and dim:
        raise ValueError("the model has norms or layer scales that read a condition: give condition=")
    if condition is None:
        return
    if not dim:
        raise ValueError("a condition is given, but no norm or layer scale of the model reads one")
    check_vectors("condition", condition, prompts)
    wanted = {(batch, dim), (batch, 1, dim), (batch, length + new, dim)}
    if tuple(condition.shape) not in wanted:
        shape = f"({batch}, {dim}), or ({batch}, {length + new}, {dim}) of each token"
        raise ValueError(f"condition must be {shape}, not {tuple(condition.shape)}")


def of_places(read: Mapping[str, Any], start: int, end: int | None) -> dict[str, Any]:
    """What the model reads with the tokens from place `start` to `end`: of a condition of each token, theirs."""
    condition = read.get("condition")
    if condition is None or condition.ndim != 3 or condition.shape[1] == 1:
        return {**read}
    return {**read, "condition": condition[:, start:end]}


def of_step(read: Mapping[str, Any], start: int, end: int) -> dict[str, Any]:
    """Of that, what a cache does not hold and a further step reads anew."""
    condition = of_places(read, start, end).get("condition")
    return {} if condition is read.get("condition") else {"condition": condition}
