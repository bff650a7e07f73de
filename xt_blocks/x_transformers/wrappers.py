"""Training and generation with x-transformers' arguments and defaults."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.registry.options import whole

from ..generation import autoregressive, continuous_autoregressive, xl_autoregressive
from ..generation.beams import BeamSearch
from ..generation.decoding import Started, Stream
from ..generation.options import split_options
from ..generation.prompts import Prompts, read_prompts
from ..models.transformer import loss_of
from ..runtime.auxiliary import auxiliary_losses
from .any_net import WholeDecoding, is_our_model, without_none
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
    "equal_loss_weight_batch": False,
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
    if filter_thres is not None and filter_logits_fn is top_p:
        warnings.warn(
            f"top_p keeps the probability {filter_thres}; releases such as 1.10 of x-transformers kept "
            f"{1 - filter_thres:g} with filter_thres. filter_kwargs={{'thres': {filter_thres}}} says what is meant",
            stacklevel=4,
        )
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

    net: Any
    pad_value: int
    max_seq_len: Any

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
        eos_token: int | Sequence[int] | None = None,
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
        if is_our_model(self.net):
            out: Stream = super().stream(prompts, seq_len, **options)  # type: ignore[misc]
            return out
        started = self._start(prompts, seq_len, options, options.pop("mask", None))
        return Stream(self.net, started.prompts, started.decoding, started.steps, started.generation, self.pad_value)

    def beam_search(
        self,
        prompts: Any,
        seq_len: int,
        beams: int = 4,
        return_beams_and_scores: bool = False,
        eos_token: int | Sequence[int] | None = None,
        temperature: float = 1.0,
        stochastic: bool = False,
        prompt_lens: Tensor | None = None,
        filter_logits_fn: Any = None,
        **options: Any,
    ) -> Any:
        """The likeliest text that a search finds, as `xt_blocks`' own; the temperature is of tokens that are drawn."""
        options = sampling_of(filter_logits_fn, **options) | {"eos_token": eos_token}
        if stochastic:
            options["temperature"] = temperature
        prompts = prompts_of(prompts, prompt_lens)
        if is_our_model(self.net):
            given = {"stochastic": stochastic, **options}
            return super().beam_search(prompts, seq_len, beams, return_beams_and_scores, **given)  # type: ignore[misc]
        length_penalty = options.pop("length_penalty", 0.0)
        started = self._start(prompts, seq_len, options, options.pop("mask", None))
        search = BeamSearch(started.generation, beams, length_penalty, stochastic)
        return search.run(self.net, started, self.pad_value, return_beams_and_scores)

    def _start(self, prompts: Any, seq_len: int, options: Mapping[str, Any], *own: Any, **named: Any) -> Started:
        if self.max_seq_len != self.net.max_seq_len:
            raise ValueError(f"the wrapper's max_seq_len was set to {self.max_seq_len}: set that of its net")
        if is_our_model(self.net):
            started: Started = super()._start(prompts, seq_len, options, *own, **named)  # type: ignore[misc]
            return started
        rows = read_prompts(prompts, *own)
        generation, read = split_options(options)
        if generation.compile:
            raise TypeError("compile=True is for models of xt_blocks, whose steps are known: compile the net itself")
        seq_len = whole("seq_len", seq_len)
        return Started(rows, WholeDecoding(self.net, rows, seq_len, read), seq_len, generation)


def mask_of(x: Tensor, mask: Tensor | None, lens: Tensor) -> Tensor:
    """(batch, seq) bool: the first `lens: (batch,)` places of each row of `x: (batch, seq, ...)`.

    Raises:
        TypeError: there is a mask already.
    """
    if mask is not None:
        raise TypeError("forward() got lens and mask, which say the same; give one")
    return torch.arange(x.shape[1], device=x.device, dtype=torch.int64) < lens[:, None]


class AutoregressiveWrapper(_Generates, autoregressive.AutoregressiveWrapper):
    """`xt_blocks.AutoregressiveWrapper`, with x-transformers' arguments and its default of sampling.

    Args:
        net: a model, or any module of a client's own from tokens (batch, seq) to logits, which has a max_seq_len.
    """

    def __init__(
        self, net: Any, ignore_index: int = -100, pad_value: int = 0, mask_prob: float = 0.0, **options: Any
    ) -> None:
        if is_our_model(net):
            super().__init__(net, ignore_index, pad_value, mask_prob, **_without_defaults(options))
            return
        nn.Module.__init__(self)
        if not isinstance(net, nn.Module) or not hasattr(net, "max_seq_len") or _without_defaults(options):
            raise TypeError(f"net must be a module with a max_seq_len, and {type(net).__name__} takes no other options")
        self.net, self.max_seq_len = net, net.max_seq_len
        self.ignore_index, self.pad_value, self.mask_prob = ignore_index, pad_value, mask_prob

    def forward(self, x: Tensor, return_outputs: bool = False, *, lens: Tensor | None = None, **inputs: Any) -> Any:  # type: ignore[override]
        """The loss, as `xt_blocks`' own gives it.

        Args:
            x: (batch, seq + 1) tokens.
            return_outputs: return the logits (batch, seq, tokens) and the Intermediates too: (loss, (logits, these)).
            lens: (batch,) int, how many tokens of each row are real, in place of a mask.
            inputs: a condition may be of all seq + 1 tokens.
        """
        if isinstance(return_outputs, Tensor):
            raise TypeError("forward() got a tensor as return_outputs; write mask= for a mask")
        if lens is not None:
            inputs["mask"] = mask_of(x, inputs.get("mask"), lens)
        condition = inputs.get("condition")
        if isinstance(condition, Tensor) and condition.ndim == 3 and condition.shape[1] == x.shape[1]:
            inputs["condition"] = condition[:, :-1]  # there, the net reads the last token too
        if not return_outputs and is_our_model(self.net):
            return super().forward(x, **inputs)
        for name in inputs.keys() - _LOSS_INPUTS if is_our_model(self.net) else ():
            raise TypeError(f"forward() got an unknown argument '{name}'")
        mask = inputs.pop("mask", None)
        tokens, target, mask = autoregressive.shifted(x, mask, self.ignore_index, self.pad_value)
        if self.training and self.mask_prob > 0:
            inputs["self_attn_context_mask"] = autoregressive.forgetful_mask(tokens, mask, self.mask_prob)
        given, wanted = without_none({"mask": mask, **inputs}), self._wanted(target)
        with auxiliary_losses() as further:
            if not return_outputs:
                return further.added_to(loss_of(self.net, tokens, wanted, **given))
            logits, seen = self.net(tokens, return_intermediates=True, **given)
        predicted = logits[:, logits.shape[1] - target.shape[1] :]
        return further.added_to(wanted.of_logits(predicted)), (logits, seen)


_LOSS_INPUTS = signature(autoregressive.AutoregressiveWrapper.forward).parameters.keys()


class ContinuousAutoregressiveWrapper(continuous_autoregressive.ContinuousAutoregressiveWrapper):
    """`xt_blocks.ContinuousAutoregressiveWrapper`, with x-transformers' arguments.

    Args:
        net: a model, or any module of a client's own from vectors (batch, seq, dim) to such, which has a max_seq_len.
        use_l1_loss: the absolute difference, in place of a loss_fn.
        options: as there; those of 2.x that are not here are refused unless they are at their default.
    """

    def __init__(self, net: Any, *args: Any, use_l1_loss: bool = False, **options: Any) -> None:
        own = _without_defaults(options)
        if use_l1_loss:
            own["loss_fn"] = partial(F.l1_loss, reduction="none")
        if is_our_model(net):
            super().__init__(net, *args, **own)
            return
        nn.Module.__init__(self)
        if not isinstance(net, nn.Module) or not hasattr(net, "max_seq_len") or args or own.keys() - {"loss_fn"}:
            raise TypeError(f"net must be a module with a max_seq_len, and {type(net).__name__} takes only a loss_fn")
        self.net, self.max_seq_len, self.loss_fn = net, net.max_seq_len, own.get("loss_fn")  # type: ignore[assignment]

    def forward(self, x: Tensor, mask: Tensor | None = None, *, lens: Tensor | None = None, **inputs: Any) -> Tensor:
        """As `xt_blocks`' own; `lens: (batch,)` says how many vectors of each row are real, in place of a mask."""
        if lens is not None:
            mask = mask_of(x, mask, lens)
        if is_our_model(self.net):
            return super().forward(x, mask, **inputs)
        seen = None if mask is None else mask[:, :-1]
        out = self.net(x[:, :-1], **without_none({"mask": seen, **inputs}))[:, 1 - x.shape[1] :]
        losses: Tensor = (self.loss_fn or partial(F.mse_loss, reduction="none"))(out, x[:, 1:])
        return losses.mean() if seen is None else losses[seen].mean()

    def generate(self, start_tokens: Any = None, seq_len: int | None = None, **options: Any) -> Tensor:  # type: ignore[override]
        """As `xt_blocks`' own, whose `start` is called `start_tokens` there."""
        start = options.pop("start", start_tokens)
        if start is None or seq_len is None:
            raise TypeError("generate() needs start_tokens and seq_len")
        if is_our_model(self.net):
            return super().generate(start, seq_len, **options)
        options.pop("cache_kv", None)
        rows = Prompts(start.detach() if start.ndim == 3 else start.detach()[None], single=start.ndim == 2)
        return Stream(self.net, rows, WholeDecoding(self.net, rows, seq_len, options), seq_len).collect()


class XLAutoregressiveWrapper(_Generates, xl_autoregressive.XLAutoregressiveWrapper):
    """`xt_blocks.XLAutoregressiveWrapper`, with x-transformers' arguments and its default of sampling."""

    def __init__(self, net: Any, ignore_index: int = -100, pad_value: int = 0, **options: Any) -> None:
        super().__init__(net, ignore_index, pad_value, **_without_defaults(options))
