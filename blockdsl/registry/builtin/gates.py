"""Gates of the weighted sums of values, as options of attention: what clashes, and what they cost.

A gate is a linear layer, or two with few features in between. `xt_blocks.blocks.output` computes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ..kinds import Shape
from ..options import Option
from ..split import Cut
from .switch import switch


def _rank(gate: str, doc: str) -> Option:
    return Option(f"{gate}_rank", int, None, doc, setting=f"attn_{gate}_rank", least=1, optional=True)


GATE_OPTIONS = (
    switch(
        "gate_values",
        "gate the weighted sum of values with a sigmoid of the input (doi:10.1038/s41586-021-03819-2)",
    ),
    switch("gate_values_headwise", "gate_values has one gate for each head (arXiv:2505.06708)"),
    switch("gate_bias", "the gate of gate_values has a bias (Qwen3-Next: false)", default=True),
    _rank("gate_values", "features between two linear layers of that gate (HyGA, arXiv:2608.11805); none: one layer"),
    switch(
        "output_gate",
        "gate the weighted sums of values of all heads by themselves; beside gate_values, one gate of the sum of both "
        "(HyGA, arXiv:2608.11805)",
    ),
    switch("output_gate_headwise", "output_gate has one gate for each head"),
    _rank("output_gate", "features between two linear layers of that gate; none: one layer"),
    switch("low_rank_silu_gates", "silu between two linear layers of a gate (arXiv:2608.11805)", default=True),
    switch("swiglu_values", "these gates are silu, in place of the sigmoid (arXiv:2002.05202)"),
    switch(
        "gate_value_heads",
        "each head's weighted sum of values times a sigmoid of the input, all but 1 at first (arXiv:2306.12929)",
    ),
)


class Gate(NamedTuple):
    """A linear layer of a gate, or two with `rank` features in between.

    Attributes:
        name: of the module within the output.
        reads, gives: features.
    """

    name: str
    reads: int
    gives: int
    rank: int | None
    bias: bool


def gates(o: Any) -> Iterator[Gate]:
    """Those of a block's options."""
    inner = o.heads * o.value_dim_head
    if o.gate_values:
        yield Gate("to_gate", o.dim_in, o.heads if o.gate_values_headwise else inner, o.gate_values_rank, o.gate_bias)
    if o.output_gate:
        yield Gate("to_output_gate", inner, o.heads if o.output_gate_headwise else inner, o.output_gate_rank, False)
    if o.gate_value_heads:
        yield Gate("to_head_gate", o.dim_in, o.heads, None, True)


def gate_check(o: Any) -> str | None:
    """Why these options do not go together; None: they do."""
    if not o.gate_bias and not o.gate_values:
        return "gate_bias is false, but it needs gate_values"
    for gate in ("gate_values", "output_gate"):
        own = [name for name in (f"{gate}_headwise", f"{gate}_rank") if getattr(o, name)]
        if own and not getattr(o, gate):
            return f"{own[0]} is set, but it needs {gate}"
    if not o.low_rank_silu_gates and o.gate_values_rank is None and o.output_gate_rank is None:
        return "low_rank_silu_gates is false, but it needs gate_values_rank or output_gate_rank"
    if o.swiglu_values and not (o.gate_values or o.output_gate):
        return "swiglu_values is set, but it needs gate_values or output_gate"
    return None


def gate_shapes(o: Any) -> dict[str, Shape]:
    """Their parameters."""
    shapes: dict[str, Shape] = {}
    for name, reads, gives, rank, bias in gates(o):
        last = f"output.{name}" if rank is None else f"output.{name}.up"
        shapes |= {} if rank is None else {f"output.{name}.down.weight": (rank, reads)}
        shapes |= {f"{last}.weight": (gives, reads if rank is None else rank)}
        shapes |= {f"{last}.bias": (gives,)} if bias else {}
    return shapes


def gate_cuts(o: Any) -> dict[str, Cut]:
    """Of these parameters, by heads; the first of two layers is whole on every rank."""
    return {name: Cut() for name in gate_shapes(o) if ".down." not in name}


def gate_products(o: Any) -> int:
    """Multiplications for a token."""
    return sum(
        gate.reads * gate.gives if gate.rank is None else gate.rank * (gate.reads + gate.gives) for gate in gates(o)
    )


def gate_saved(o: Any) -> int:
    """Numbers saved of a token for the backward pass: gates, what they give, and what is between two layers."""
    made = {gate.name: gate for gate in gates(o)}
    inner, own = o.heads * o.value_dim_head, made.pop("to_head_gate", None)
    saved = 0 if own is None else own.gives + inner
    if made:  # of two logits, the sum
        saved += max(gate.gives for gate in made.values()) * (2 if o.swiglu_values else 1) + inner
    return saved + sum((gate.rank or 0) * (2 if o.low_rank_silu_gates else 1) for gate in made.values())


def gate_steps(o: Any) -> list[str]:
    """What a drawing says of them."""
    gated = "SiLU gate" if o.swiglu_values else "gate"
    by = {
        "input": (o.gate_values, o.gate_values_headwise, o.gate_values_rank),
        "heads' outputs": (o.output_gate, o.output_gate_headwise, o.output_gate_rank),
    }
    silu = ", SiLU" if o.low_rank_silu_gates else ""
    steps = [
        f"{gated}{' heads' if headwise else ''} by the {what}"
        + (" + bias" if o.gate_bias and what == "input" else "")
        + ("" if rank is None else f", rank {rank}{silu}")
        for what, (on, headwise, rank) in by.items()
        if on
    ]
    return (["gate heads by the input"] if o.gate_value_heads else []) + steps
