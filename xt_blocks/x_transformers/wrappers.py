"""Training and generation with x-transformers' arguments and defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from ..generation import autoregressive, xl_autoregressive
from ..generation.decoding import Stream
from ..kernels.cross_entropy import Target
from .sampling import FILTER_LOGITS_FN, top_a, top_k, top_p

_OUR_FILTERS = ("top_k", "top_p", "top_a", "min_p")

# Of 2.x, with the defaults at which they change nothing.
_NOT_HERE: dict[str, Any] = {
    "add_attn_z_loss": False,
    "next_embed_loss_weight": 0.1,
    "looped_loss_threshold_exit": 0.05,
    "looped_loss_slope": 50,
    "looped_exit_loss_weight": 1.0,
    "restrict_to_max_seq_len": True,
    "amateur_model": None,
    "contrastive_decode_kwargs": None,
    "return_intermediates": False,
    "tbptt_steps": 1,
}


def _without_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in _NOT_HERE or value != _NOT_HERE[name]}


def sampling_of(
    filter_logits_fn: str | Callable[..., Tensor] | None = top_k,
    filter_thres: float | None = None,
    min_p_pow: float | None = None,
    min_p_ratio: float | None = None,
    filter_kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The options of our `generate` for those of x-transformers, whose default is the likeliest tenth of the tokens.

    Args:
        filter_logits_fn: a function of logits (batch, tokens), or its name.
        filter_thres: of 1.x: what share of the tokens `top_k` drops, or the probability that `top_p` keeps.
        min_p_pow, min_p_ratio: of 1.x, for `top_a`.
        filter_kwargs: further arguments of the filter.
        options: the others; with one of our filters (`top_k=40`) nothing is filtered by default.

    Raises:
        ValueError: no filter has the name.
        TypeError: an argument of 1.x with a filter that it does not go with.
    """
    if filter_logits_fn is top_k and any(options.get(name) is not None for name in _OUR_FILTERS):
        filter_logits_fn = None
    options = _without_defaults(options)
    if isinstance(filter_logits_fn, str):
        if filter_logits_fn not in FILTER_LOGITS_FN:
            raise ValueError(f"filter_logits_fn must be one of {', '.join(FILTER_LOGITS_FN)}, not '{filter_logits_fn}'")
        filter_logits_fn = FILTER_LOGITS_FN[filter_logits_fn]
    further = dict(filter_kwargs or {})
    for name, value, there, fits in (
        ("filter_thres", filter_thres, "thres", (top_k, top_p)),
        ("min_p_pow", min_p_pow, "min_p_pow", (top_a,)),
        ("min_p_ratio", min_p_ratio, "min_p_ratio", (top_a,)),
    ):
        if value is not None and filter_logits_fn not in fits:
            names = " or ".join(filter.__name__ for filter in fits)
            raise TypeError(f"{name}={value} is for filter_logits_fn={names}; give filter_kwargs= for another")
        if value is not None:
            further[there] = value
    chosen = filter_logits_fn
    if chosen is None and further:
        raise TypeError(f"filter_kwargs={further} has no filter_logits_fn to go to")
    if chosen is not None and further:
        return options | {"filter_logits_fn": lambda logits: chosen(logits, **further)}
    return options | {"filter_logits_fn": chosen}


def prompts_of(prompts: Any, lens: Tensor | None) -> Any:
    """Prompts as ours are given: those padded on the right, with their lengths, as a list."""
    if lens is None:
        return prompts
    if not isinstance(prompts, Tensor) or prompts.ndim != 2 or len(lens) != len(prompts):
        raise ValueError("prompt_lens are for prompts (batch, n), a length each")
    if not all(0 < int(n) <= prompts.shape[1] for n in lens):
        raise ValueError(f"prompt_lens must be from 1 to {prompts.shape[1]}, not {lens.tolist()}")
    return [row[: int(n)] for row, n in zip(prompts, lens, strict=True)]


class _Generates:
    """`generate` and `stream` with x-transformers' arguments."""

    def __init__(self, *args: Any, **options: Any) -> None:
        if args or options:
            super().__init__(*args, **options)
        else:  # a subclass that makes all of it itself, after super(AutoregressiveWrapper, self).__init__()
            nn.Module.__init__(self)  # type: ignore[arg-type]

    def generate(self, *inputs: Any, **options: Any) -> Tensor:
        """The tokens of `stream` side by side, (batch, up to seq_len); or (up to seq_len,)."""
        tokens: Tensor = self.stream(*inputs, **options).collect()
        return tokens

    def stream(
        self,
        prompts: Any = None,
        seq_len: int | None = None,
        eos_token: int | None = None,
        temperature: float = 1.0,
        **options: Any,
    ) -> Stream:
        """Tokens that go on from a prompt, one a step; filters are those of `sampling_of`.

        Args:
            prompts: (batch, n) tokens, or (n,), or a list of (n,); `start_tokens` in 1.x.
            seq_len: how many tokens to add.
            eos_token, temperature: as in `xt_blocks`' own.
            prompt_lens: (batch,) int, how long each prompt is; what is after that does not count.
            options: those of `xt_blocks`' own.
        """
        prompts = options.pop("start_tokens", None) if prompts is None else prompts
        if prompts is None or seq_len is None:
            raise TypeError("generate() needs prompts and seq_len")
        prompts = prompts_of(prompts, options.pop("prompt_lens", None))
        options = sampling_of(**options) | {"eos_token": eos_token, "temperature": temperature}
        out: Stream = super().stream(prompts, seq_len, **options)  # type: ignore[misc]
        return out


class AutoregressiveWrapper(_Generates, autoregressive.AutoregressiveWrapper):
    """`xt_blocks.AutoregressiveWrapper`, with x-transformers' arguments and its default of sampling."""

    def __init__(
        self, net: Any, ignore_index: int = -100, pad_value: int = 0, mask_prob: float = 0.0, **options: Any
    ) -> None:
        super().__init__(net, ignore_index, pad_value, mask_prob, **_without_defaults(options))

    def forward(self, x: Tensor, return_outputs: bool = False, *, lens: Tensor | None = None, **inputs: Any) -> Any:  # type: ignore[override]
        """The loss, as `xt_blocks`' own gives it.

        Args:
            x: (batch, seq + 1) tokens.
            return_outputs: return the logits (batch, seq, tokens) and the Intermediates too: (loss, (logits, these)).
            lens: (batch,) int, how many tokens of each row are real, in place of a mask.
        """
        if isinstance(return_outputs, Tensor):
            raise TypeError("forward() got a tensor as return_outputs; write mask= for a mask")
        if lens is not None:
            if inputs.get("mask") is not None:
                raise TypeError("forward() got lens and mask, which say the same; give one")
            inputs["mask"] = torch.arange(x.shape[1], device=x.device, dtype=torch.int64) < lens[:, None]
        if not return_outputs:
            return super().forward(x, **inputs)
        for name in inputs.keys() - _LOSS_INPUTS:
            raise TypeError(f"forward() got an unknown argument '{name}'")
        mask = inputs.pop("mask", None)
        tokens, target, mask = autoregressive.shifted(x, mask, self.ignore_index, self.pad_value)
        if self.training and self.mask_prob > 0:
            inputs["self_attn_context_mask"] = autoregressive.forgetful_mask(tokens, mask, self.mask_prob)
        logits, seen = self.net(tokens, mask=mask, return_intermediates=True, **inputs)
        predicted = logits[:, logits.shape[1] - target.shape[1] :]
        return Target(target, self.ignore_index).of_logits(predicted), (logits, seen)


_LOSS_INPUTS = signature(autoregressive.AutoregressiveWrapper.forward).parameters.keys()


class XLAutoregressiveWrapper(_Generates, xl_autoregressive.XLAutoregressiveWrapper):
    """`xt_blocks.XLAutoregressiveWrapper`, with x-transformers' arguments and its default of sampling."""

    def __init__(self, net: Any, ignore_index: int = -100, pad_value: int = 0, **options: Any) -> None:
        super().__init__(net, ignore_index, pad_value, **_without_defaults(options))
