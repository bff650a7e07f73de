"""Generation with a net of a client's own: any module from tokens to logits, or from vectors to vectors.

It is known to have a `max_seq_len`, and nothing else. So nothing can be kept in a cache: it reads the last max_seq_len
places anew for each step, as x-transformers' wrappers did before they had caches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..generation.prompts import Prompts
from ..generation.steps import Rows, selected
from ..kernels.compat import uncompiled
from ..models.sequence import SequenceModel


def is_our_model(net: nn.Module) -> bool:
    """Whether it is one of our models, of which much more is known."""
    return isinstance(uncompiled(net), SequenceModel)


def without_none(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What a client's net is called with: only what was given."""
    return {name: value for name, value in inputs.items() if value is not None}


class WholeDecoding:
    """A `generation.steps.Decoding` that reads all of the window at each step.

    Args:
        net: called with (batch, up to max_seq_len) tokens, or vectors (batch, up to max_seq_len, dim).
        prompts: where it starts.
        new: how many steps follow.
        read: further inputs of the net.
    """

    def __init__(self, net: nn.Module, prompts: Prompts, new: int, read: Mapping[str, Any]) -> None:
        self.net, self.read, self.rows = net, read, Rows(prompts.tokens, new)
        self.mask = None if prompts.mask is None else F.pad(prompts.mask, (0, new), value=True)
        self.padding = (~prompts.mask).sum(dim=1) if prompts.mask is not None and prompts.ragged else None

    def next_output(self) -> Tensor:
        """(batch, num_tokens) logits, or (batch, dim) the next vector."""
        most, end = self.net.max_seq_len, self.rows.length
        start = max(0, end - int(most)) if most else 0  # type: ignore[arg-type]
        if self.padding is not None:  # how x-transformers tells a net of it
            hidden: dict[str, Any] = {"seq_start_pos": (self.padding - start).clamp(min=0)}
        else:
            hidden = {} if self.mask is None else {"mask": self.mask[:, start:end]}
        out: Tensor = self.net(self.rows.since(start), **hidden, **without_none(self.read))
        return out[:, -1]

    def append(self, token: Tensor) -> None:
        """token: (batch,), or a vector (batch, dim)."""
        self.rows.append(token)

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, (n,) int: of every input of the net that has as many."""
        of_rows = {name: t for name, t in self.read.items() if isinstance(t, Tensor) and t.ndim}
        of_rows = {name: t[rows] for name, t in of_rows.items() if t.shape[0] == self.rows.batch}
        self.read = {**self.read, **of_rows}
        self.rows.select(rows)
        self.mask, self.padding = selected(self.mask, rows), selected(self.padding, rows)
