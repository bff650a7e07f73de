"""Gates of the weighted sums of values, as options of attention: what clashes, and what they cost.

`xt_blocks.blocks.output` computes them.
"""

from __future__ import annotations

from typing import Any

from ..kinds import Shape
from ..split import Cut
from .switch import switch

GATE_OPTIONS = (
    switch(
        "gate_values",
        "gate the weighted sum of values with a sigmoid of the input (doi:10.1038/s41586-021-03819-2)",
    ),
    switch("gate_values_headwise", "gate_values has one gate for each head (arXiv:2505.06708)"),
    switch("gate_bias", "the gate of gate_values has a bias (Qwen3-Next: false)", default=True),
)


def gate_check(o: Any) -> str | None:
    """Why these options do not go together; None: they do."""
    if not o.gate_bias and not o.gate_values:
        return "gate_bias is false, but it needs gate_values"
    if o.gate_values_headwise and not o.gate_values:
        return "gate_values_headwise is set, but it needs gate_values"
    return None


def gate_features(o: Any) -> int:
    """Features of the gate of values; 0: there is none."""
    return (o.heads if o.gate_values_headwise else o.heads * o.value_dim_head) if o.gate_values else 0


def gate_shapes(o: Any) -> dict[str, Shape]:
    """Their parameters."""
    shapes: dict[str, Shape] = {}
    if gates := gate_features(o):
        shapes["output.to_gate.weight"] = (gates, o.dim_in)
        shapes |= {"output.to_gate.bias": (gates,)} if o.gate_bias else {}
    return shapes


def gate_cuts() -> dict[str, Cut]:
    """Of these parameters, by heads."""
    return dict.fromkeys(("output.to_gate.weight", "output.to_gate.bias"), Cut())


def gate_products(o: Any) -> int:
    """Multiplications for a token."""
    return o.dim_in * gate_features(o)


def gate_steps(o: Any) -> list[str]:
    """What a drawing says of them."""
    return [f"gate{' heads' if o.gate_values_headwise else ''} by the input"] if o.gate_values else []
