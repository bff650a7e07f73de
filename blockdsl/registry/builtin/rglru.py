"""Griffin's recurrent block `rglru`: a convolution and a gated linear recurrence, beside a gate (arXiv:2402.19427)."""

from __future__ import annotations

from typing import Any

from ..kinds import Kind, Shape, Sizes
from ..options import Option, Value
from ..split import Cut, Split, uneven
from ..state import State
from .words import counted


def _width(o: Any) -> int:
    return int(o.dim if o.width is None else o.width)


def _rglru_check(o: Any) -> str | None:
    if _width(o) % o.heads:
        return f"a width of {_width(o)} is not divisible by heads={o.heads}, the blocks of the gates' matrices"
    return None


def _rglru_derived(o: Any) -> dict[str, Value]:
    return {"width": _width(o)}


def _rglru_shapes(o: Any) -> dict[str, Shape]:
    size = o.width // o.heads
    gates: dict[str, Shape] = {}
    for gate in ("input_gate", "recurrence_gate"):
        gates |= {f"{gate}.weight": (o.heads, size, size), f"{gate}.bias": (o.heads, size)}
    return gates | {
        "to_in.weight": (2 * o.width, o.dim),
        "to_in.bias": (2 * o.width,),
        "conv.weight": (o.width, 1, o.kernel),
        "conv.bias": (o.width,),
        "decay": (o.width,),
        "to_out.weight": (o.dim, o.width),
        "to_out.bias": (o.dim,),
    }


def _rglru_flops(o: Any, sizes: Sizes) -> int:
    products = 3 * o.dim + o.kernel + 2 * (o.width // o.heads) + 1  # the last one of the recurrence itself
    return 2 * sizes.batch * sizes.seq * int(o.width) * products


def _rglru_state(o: Any) -> dict[str, State]:
    width = _width(o)
    tail = {"conv": State((o.kernel - 1, width))} if o.kernel > 1 else {}
    return tail | {"state": State((width,), dtype="float32"), "started": State((1,))}


def _rglru_split(o: Any, ranks: int) -> Split | str:
    if o.heads % ranks:
        return uneven("heads", o.heads, ranks)
    by_head, joint = Cut(), Cut(parts=(o.width, o.width))
    cuts = {f"{gate}.{what}": by_head for gate in ("input_gate", "recurrence_gate") for what in ("weight", "bias")}
    cuts |= {"to_in.weight": joint, "to_in.bias": joint, "conv.weight": by_head, "conv.bias": by_head}
    cuts |= {"decay": by_head, "to_out.weight": Cut(axis=1)}
    return Split({"width": o.width // ranks, "heads": o.heads // ranks}, cuts, once=("to_out.bias",))


def _rglru_steps(o: Any) -> list[tuple[str, str]]:
    return [
        (f"linear {o.dim:,} → {2 * o.width:,} + bias", ""),
        (f"convolution over {counted(o.kernel, 'token')} + bias", ""),
        (f"RG-LRU, gates in {counted(o.heads, 'block')}", ""),
        ("GELU (tanh) gate", ""),
        (f"linear {o.width:,} → {o.dim:,} + bias", ""),
    ]


RECURRENT = Kind(
    name="rglru",
    title="gated linear recurrence",
    prefix="rglru",
    options=(
        Option(
            "width",
            int,
            None,
            "features of the recurrence (Griffin, arXiv:2402.19427); none: dim",
            setting="rglru_width",
            least=1,
            optional=True,
        ),
        Option(
            "heads",
            int,
            8,
            "blocks of the gates' matrices, which are block-diagonal (Griffin, arXiv:2402.19427)",
            setting="rglru_heads",
            least=1,
        ),
        Option("kernel", int, 4, "tokens that the convolution reads", setting="rglru_kernel", least=1),
    ),
    inputs=("mask", "cache"),
    shapes=_rglru_shapes,
    flops=_rglru_flops,
    saved=lambda o, sizes, inputs: sizes.batch * sizes.seq * (o.dim + 15 * o.width),
    state=_rglru_state,
    module="xt_blocks.blocks.rglru:RecurrentBlock",
    causal_only=True,
    check=_rglru_check,
    derive=_rglru_derived,
    split=_rglru_split,
    steps=_rglru_steps,
    summary=lambda o: [f"{o.width:,} features"],
    also=("lru", "griffin", "hawk", "rg_lru", "recurrent"),
    words={
        "heads": "gates in {} blocks",
        "kernel": "convolution over {} tokens",
    },
    builtin=True,
)
