"""What a layer may return beside its update: scores, losses of training, statistics, what later blocks read.

Returned and not kept in the layer, since a layer may be checkpointed, tied or run by several threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor


class LayerOutput(NamedTuple):
    """What a layer returns that has more to say than its update.

    Attributes:
        update: (batch, seq, dim)
        scores: its `request.Scores`, if they were requested.
        losses: by name, what it adds to the loss in training, each a number with its coefficient in it.
        statistics: by name, numbers for `xt_blocks.record`, without a gradient. A kind with the input `observed` is
            told whether anyone looks.
        gives: by name, what later blocks read of it, which its input `gives` lists.
    """

    update: Tensor
    scores: Any = None
    losses: Mapping[str, Tensor] | None = None
    statistics: Mapping[str, Tensor] | None = None
    gives: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, out: Any) -> LayerOutput:
        """From whatever a layer returns: its update alone, (update, scores), or more."""
        return out if isinstance(out, cls) else cls(*out) if isinstance(out, tuple) else cls(out)
