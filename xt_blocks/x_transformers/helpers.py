"""Small helpers that clients import from x-transformers, under its names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks.subset import without_share

T = TypeVar("T")

DEFAULT_DIM_HEAD = 64


# Values --------------------------------------------------------------------------------------------------------------


def exists(val: Any) -> bool:
    """Whether it is not None."""
    return val is not None


def default(*values: Any) -> Any:
    """The first that is not None; the last one may be a function that makes it."""
    for value in values[:-1]:
        if value is not None:
            return value
    last = values[-1]
    return last() if callable(last) and not isinstance(last, nn.Module) else last


def identity(t: T, *args: Any, **kwargs: Any) -> T:
    """What it was given."""
    return t


def first(it: Iterable[T], default: T | None = None) -> T | None:
    """The first item, or the default of an empty one."""
    return next(iter(it), default)


def is_empty(x: Any) -> bool:
    """Whether it has no items."""
    return len(x) == 0


def cast_tuple(val: Any, depth: int = 1) -> tuple[Any, ...]:
    """A tuple as it is, and anything else so many times in one."""
    return val if isinstance(val, tuple) else (val,) * depth


def layer_schedule(
    start: float, end: float, depth: int, schedule: str | Callable[[float, float, float], float] = "cosine"
) -> tuple[float, ...]:
    """A value for each of `depth` layers, from start to end: in even steps, along half a cosine, or by a function.

    Args:
        schedule: "linear", "cosine", or a function of start, end and how far it is, from 0 to 1.
    """
    ways: dict[str, Callable[[float, float, float], float]] = {
        "linear": lambda start, end, t: start + (end - start) * t,
        "cosine": lambda start, end, t: start + (end - start) * (1 - math.cos(math.pi * t)) / 2,
    }
    way = ways.get(schedule) if isinstance(schedule, str) else schedule
    if way is None or depth < 2:
        raise ValueError("layer_schedule takes a depth of at least 2, and the schedule linear, cosine or a function")
    return tuple(way(start, end, layer / (depth - 1)) for layer in range(depth))


def divisible_by(num: int, den: int) -> bool:
    """Whether it divides without a rest."""
    return num % den == 0


def at_most_one_of(*bools: Any) -> bool:
    """Whether no two are true."""
    return sum(map(bool, bools)) <= 1


def maybe(fn: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """The function, which gives None as it is; `identity` for no function."""
    if fn is None:
        return identity

    @wraps(fn)
    def called(x: Any, *args: Any, **kwargs: Any) -> Any:
        return x if x is None else fn(x, *args, **kwargs)

    return called


class always:
    """A function of anything that always gives `val`."""

    def __init__(self, val: Any) -> None:
        self.val = val

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.val


class equals:
    """Whether something equals `val`."""

    def __init__(self, val: Any) -> None:
        self.val = val

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> bool:
        return bool(x == self.val)


class not_equals:
    """Whether something differs from `val`."""

    def __init__(self, val: Any) -> None:
        self.val = val

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> bool:
        return bool(x != self.val)


# Dictionaries --------------------------------------------------------------------------------------------------------


def pick_and_pop(keys: Iterable[str], d: dict[str, Any]) -> dict[str, Any]:
    """Move these keys into a dictionary of their own."""
    return {key: d.pop(key) for key in keys}


def group_dict_by_key(cond: Callable[[str], bool], d: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The items whose key meets the condition, and the others."""
    return {k: v for k, v in d.items() if cond(k)}, {k: v for k, v in d.items() if not cond(k)}


def string_begins_with(prefix: str, str: str) -> bool:
    """Whether the string starts with the prefix."""
    return str.startswith(prefix)


def group_by_key_prefix(prefix: str, d: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The items whose key has the prefix, and the others."""
    return group_dict_by_key(lambda key: key.startswith(prefix), d)


def groupby_prefix_and_trim(prefix: str, d: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `group_by_key_prefix`, without the prefix."""
    own, rest = group_by_key_prefix(prefix, d)
    return {key[len(prefix) :]: value for key, value in own.items()}, rest


# Tensors -------------------------------------------------------------------------------------------------------------


def log(t: Tensor, eps: float = 1e-20) -> Tensor:
    """The logarithm of at least `eps`."""
    return t.clamp(min=eps).log()


def max_neg_value(tensor: Tensor) -> float:
    """The most negative finite number of its type."""
    return -torch.finfo(tensor.dtype).max


def l2norm(t: Tensor, groups: int = 1) -> Tensor:
    """`t: (..., dim)` with each of `groups` parts of the last axis scaled to length one."""
    return F.normalize(t.reshape(*t.shape[:-1], groups, -1), dim=-1).flatten(-2)


def softclamp(t: Tensor, value: float) -> Tensor:
    """value · tanh(t / value)"""
    return (t / value).tanh() * value


def masked_mean(t: Tensor, mask: Tensor | None = None, dim: int = 1) -> Tensor:
    """Mean of `t: (batch, seq, ...)` over the places where `mask: (batch, seq)` is True; 0 where there is none."""
    if mask is None:
        return t.mean(dim=dim)
    mask = mask.reshape(*mask.shape, *(1 for _ in range(t.ndim - mask.ndim)))
    return t.masked_fill(~mask, 0.0).sum(dim=dim) / mask.sum(dim=dim).clamp(min=1)


def pad_at_dim(t: Tensor, pad: tuple[int, int], dim: int = -1, value: float = 0.0) -> Tensor:
    """`t` with so much before and after along one axis."""
    after = t.ndim - 1 - dim if dim >= 0 else -1 - dim
    return F.pad(t, (*(0, 0) * after, *pad), value=value)


def align_right(t: Tensor, lens: Tensor, pad_id: int = 0) -> Tensor:
    """Rows padded on the right, padded on the left instead.

    Args:
        t: (batch, seq, ...)
        lens: (batch,) int, how much of each row is real.
        pad_id: what padding becomes.
    """
    seq = t.shape[1]
    places = torch.arange(seq, device=t.device, dtype=torch.int64) - (seq - lens)[:, None]
    index = places.clamp(min=0).reshape(*places.shape, *(1 for _ in t.shape[2:])).expand_as(t)
    padding = (places < 0).reshape(index.shape[:2] + (1,) * (t.ndim - 2))
    return t.gather(1, index).masked_fill(padding, pad_id)


def shift(t: Tensor, amount: int, mask: Tensor | None = None) -> Tensor:
    """`t: (batch, seq, dim)` later by `amount` places, with zeros where nothing comes from.

    Args:
        amount: negative: earlier.
        mask: (batch, seq) bool; masked tokens count as zeros.
    """
    if amount == 0:
        return t
    t = t if mask is None else t.masked_fill(~mask[..., None], 0.0)
    return pad_at_dim(t, (amount, -amount), dim=-2)


class ShiftTokens(nn.Module):
    """Shifts parts of the features by these offsets before calling `fn`.

    Args:
        shifts: an offset a part; features that do not divide evenly stay.
        fn: called with the shifted (batch, seq, dim), and with the other arguments.
    """

    def __init__(self, shifts: Iterable[int], fn: Callable[..., Any]) -> None:
        super().__init__()
        self.fn, self.shifts = fn, tuple(shifts)

    def forward(self, x: Tensor, **kwargs: Any) -> Any:
        """`x: (batch, seq, dim)`, and what `fn` takes; a `mask` hides tokens from their neighbours."""
        size = x.shape[-1] // len(self.shifts)
        sizes = [*(size for _ in self.shifts), x.shape[-1] - size * len(self.shifts)]
        *parts, rest = x.split_with_sizes(sizes, dim=-1)
        mask = kwargs.get("mask")
        moved = [shift(part, offset, mask) for part, offset in zip(parts, self.shifts, strict=True)]
        return self.fn(torch.cat((*moved, rest), dim=-1), **kwargs)


def dropout_seq(seq: Tensor, mask: Tensor | None, dropout: float) -> tuple[Tensor, Tensor]:
    """The sequence, and its mask without a random share of each row's real tokens, at least one of which stays.

    x-transformers cuts the tokens out; here they stay in their places and are masked.

    Args:
        seq: (batch, seq, dim)
        mask: (batch, seq) bool; None: all are real.
        dropout: the share.
    """
    real = torch.ones(seq.shape[:2], dtype=torch.bool, device=seq.device) if mask is None else mask
    return seq, without_share(real, dropout)


def init_zero_(layer: nn.Module) -> None:
    """Set a linear layer's weight and bias to zero."""
    for parameter in (layer.weight, layer.bias):
        if isinstance(parameter, Tensor):
            nn.init.zeros_(parameter)


def eval_decorator(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A module's method, run in evaluation mode."""

    @wraps(fn)
    def run(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        was_training = self.training
        self.eval()
        try:
            return fn(self, *args, **kwargs)
        finally:
            self.train(was_training)

    return run
