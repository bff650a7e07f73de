"""The numbers of `record` as measurements."""

from __future__ import annotations

from typing import Any

from torch import nn

from blockdsl.measurement import Measurement
from blockdsl.measurements import Measurements

from ..runtime.record import record
from .stacks import graphs_of

UNITS = {"stream_norm": "", "branch_norm": "", "attention_entropy": "nats"}
"""What a BlockRecord has of every block, or of each head of its attention → its unit."""


def recorded(model: nn.Module, *args: Any, note: str = "", **kwargs: Any) -> Measurements:
    """What `record` finds in `model(*args, **kwargs)`, as a table and pictures.

    Args:
        note: what the model reads, for the legend.

    Returns:
        by node `stream_norm`, `branch_norm` and `attention_entropy`, the mean over heads. Facts: the `records`.

    Raises:
        ValueError: no stack of the model ran.
    """
    rows = record(model, *args, **kwargs)
    by_name = {}
    for name, unit in UNITS.items():
        values = {node: _mean(value) for node, row in rows.items() if (value := dict(row)[name]) is not None}
        by_name[name] = Measurement(name.replace("_", " "), unit, values, note)
    return Measurements(graphs_of(model), by_name, {"records": rows}, (note,) if note else ())


def _mean(value: Any) -> float:
    return sum(value) / len(value) if isinstance(value, list) else float(value)
