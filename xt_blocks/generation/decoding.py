"""The loop over steps, which is the same for all models over tokens or vectors."""

from __future__ import annotations

import operator
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..kernels.hooks import unhooked
from ..runtime.evaluation import evaluating, evaluating_all
from .options import Generation
from .prompts import Prompts
from .steps import Decoding


class Started(NamedTuple):
    """What goes on from prompts, for so many steps."""

    prompts: Prompts
    decoding: Decoding
    steps: int
    generation: Generation


def decode(
    decoding: Decoding,
    choose: Callable[[Tensor, int], Tensor],
    steps: int,
    ends: Sequence[int] = (),
    pad_value: int = 0,
) -> Generator[Tensor, None, None]:
    """(batch,) int64 tokens, or (batch, dim) vectors, one per step.

    Ends when all rows have drawn one of the tokens `ends`; after its own, a row has pad_value.

    Args:
        choose: the model's output for the next token, such as (batch, num_tokens) logits, and the step's number, →
            the token (batch,).
    """
    finished: Tensor | None = None
    for step in range(steps):
        token = choose(decoding.next_output(), step)
        decoding.append(token)
        if ends:
            ended = is_one_of(token, ends)
            if finished is not None:
                token, ended = token.masked_fill(finished, pad_value), ended | finished
            finished = ended
        yield token
        if finished is not None and finished.all():
            return


def is_one_of(token: Tensor, ends: Sequence[int]) -> Tensor:
    """Bool of the same shape: which of these tokens are among those that end a row."""
    found = [token == end for end in ends]
    return reduce(operator.or_, found) if found else torch.zeros_like(token, dtype=torch.bool)


@contextmanager
def generating(net: nn.Module, seen: bool) -> Iterator[None]:
    """Evaluation mode, without gradients, around all steps.

    Args:
        seen: a caller's function sees tensors. It may keep one for autograd, as a hook may, which refuses those of
            inference mode.
    """
    alone = not seen and all(map(unhooked, net.modules()))
    with evaluating(net), torch.inference_mode() if alone else nullcontext():
        yield


class Stream:
    """An iterator over the steps of `decode`, each in evaluation mode, without gradients.

    Args:
        net: the model.
        prompts: where it starts.
        decoding: of the model, with these prompts.
        seq_len: how many steps, at most.
        generation: how tokens are drawn; None: the model's output is the next vector.
        pad_value: what follows a row's eos.
    """

    def __init__(
        self,
        net: nn.Module,
        prompts: Prompts,
        decoding: Decoding,
        seq_len: int,
        generation: Generation | None = None,
        pad_value: int = 0,
    ) -> None:
        self._net, self._prompts = net, prompts
        if generation is None:
            self._seen, self._steps = False, decode(decoding, _as_it_is, seq_len)
        else:
            self._seen = generation.filter_logits_fn is not None
            self._steps = decode(decoding, generation.chooser(seq_len), seq_len, generation.ends, pad_value)
        self._modules = [*net.modules()]

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Tensor:
        with evaluating_all(self._modules):
            token = next(self._steps, None)
        if token is None:
            raise StopIteration
        return token

    def close(self) -> None:
        """No more tokens."""
        self._steps.close()

    def collect(self) -> Tensor:
        """All steps side by side, (batch, steps, ...) or (steps, ...): seq_len of them, or fewer if every row ended."""
        with generating(self._net, self._seen):  # once for all steps
            steps = [*self._steps]
        batch, _, *features = self._prompts.tokens.shape
        out = torch.stack(steps, dim=1) if steps else self._prompts.tokens.new_zeros(batch, 0, *features)
        return out[0] if self._prompts.single else out


def _as_it_is(vector: Tensor, step: int) -> Tensor:
    return vector
