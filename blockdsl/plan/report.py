"""A plan in words and as JSON: the table of all meshes, and all about one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .memory import CHECKPOINTING
from .schedule import SCHEDULES

if TYPE_CHECKING:
    from .plan import MeshPlan, Plan, Setup, Share

SHOWN = 12
"""Meshes of a table; `--all` shows more."""


def size(number: float) -> str:
    """Bytes in words, as makers of devices count: `79.2 GB`."""
    for unit, factor in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            return f"{number / factor:,.1f} {unit}"
    return f"{number:,.0f} B"


def table(plan: Plan, every: bool = False) -> str:
    """Of many meshes a line each, of one mesh all about it."""
    head = _heading(plan)
    if len(plan.meshes) == 1 and not plan.refused:
        return "\n".join([head, *_details(plan.meshes[0], plan.setup)])
    shown = plan.meshes if every else plan.meshes[:SHOWN]
    rows = [
        ("mesh", "micro-batches", "recomputed", "memory", "kept", "gathered", "activations", "useful", "sent a step")
    ]
    for each in shown:
        share = _fullest(each)
        rows.append(
            (
                str(each.mesh) + (" ✗" if each.fits is False else ""),
                f"{each.micro_batches} × {each.micro_batch}",
                each.checkpoint,
                size(each.memory),
                size(share.parameter_bytes + share.gradient_bytes + share.optimizer_bytes),
                size(share.gathered_bytes),
                size(share.activation_bytes[each.checkpoint]),
                f"{each.useful:.0%}",
                size(each.sent),
            )
        )
    fitting = sum(each.fits is not False for each in plan.meshes)
    lines = [head, "", *_columns(rows), ""]
    if plan.setup.memory is not None:
        lines.append(f"{fitting} of {len(plan.meshes)} meshes fit" + (", none: ✗" if not fitting else "; ✗ does not"))
    if len(shown) < len(plan.meshes):
        lines.append(f"{len(plan.meshes) - len(shown)} more are not shown; all: --all")
    lines += _refusals(plan)
    lines += [f"left out: what {title} saves" for title in dict.fromkeys(t for m in plan.meshes for t in _unknown(m))]
    return "\n".join(lines)


def as_json(plan: Plan) -> dict[str, Any]:
    setup = asdict(plan.setup)
    return {
        "pattern": plan.graph.pattern,
        "parameters": plan.parameters,
        **setup,
        "meshes": [_mesh_as_json(each) for each in plan.meshes],
        "refused": {str(mesh): why for mesh, why in plan.refused.items()},
    }


def title(each: MeshPlan, place: int, setup: Setup) -> str:
    """Of a place along pp: its ranks, and what they hold."""
    share, ranks = each.shares[place], each.mesh.size // each.mesh.pp
    which = f"rank {place}" if ranks == 1 else f"ranks {place * ranks}-{(place + 1) * ranks - 1}"
    of = "" if setup.memory is None else f" of {size(float(setup.memory))}"
    return f"{which} · {share.parameters / 1e9:,.2f} B parameters · {size(share.memory(each.checkpoint))}{of} each"


def _heading(plan: Plan) -> str:
    setup = plan.setup
    lines = [f"{plan.parameters:,} parameters · {setup.batch:,} rows of {setup.seq_len:,} tokens a step"]
    words = f"{setup.precision} · {setup.optimizer} · {setup.schedule}"
    if setup.memory is not None:
        words += f" · {size(float(setup.memory))} a device, of which {setup.reserve:.0%} is left to what is not counted"
    return "\n".join([*lines, words])


def _details(each: MeshPlan, setup: Setup) -> Iterable[str]:
    mesh, schedule = each.mesh, SCHEDULES[setup.schedule]
    verdict = {True: "fits", False: "does not fit", None: "no memory given"}[each.fits]
    yield f"mesh {mesh} · {mesh.size} ranks · {each.micro_batches} micro-batches of {each.micro_batch} rows · {verdict}"
    if mesh.pp > 1:
        yield f"{setup.schedule}: {schedule.doc}"
        yield f"a rank waits {each.bubble:.1%} of a step, were its stages equal; they are {each.balance:.1%} of that"
    yield from each.notes
    for place, share in enumerate(each.shares):
        yield ""
        yield title(each, place, setup)
        yield f"  blocks         {_spans(share)}"
        yield f"  parameters     {size(share.parameter_bytes)}"
        yield f"  gradients      {size(share.gradient_bytes)}"
        yield f"  optimiser      {size(share.optimizer_bytes)}"
        if share.gathered_bytes:
            yield f"  gathered       {size(share.gathered_bytes)}"
        saved = (f"{name} {size(share.activation_bytes[name])}" for name in CHECKPOINTING)
        yield f"  activations    {' · '.join(saved)}, by what is recomputed"
        yield f"  cache a row    {size(share.cache_bytes)}"
        yield f"  FLOPs a step   {share.flops:,}"
        for message in share.sent:
            yield f"  {message.link + ' ' + message.operation:<14} {size(message.sent)}"
    yield from (f"left out: what {kind} saves" for kind in _unknown(each))


def _spans(share: Share) -> str:
    """The blocks of each stage, first and last."""
    return ", ".join(
        stage.nodes[0] if len(stage.nodes) == 1 else f"{stage.nodes[0]} to {stage.nodes[-1]} ({len(stage.nodes)})"
        for stage in share.stages
        if stage.nodes
    )


def _refusals(plan: Plan) -> Iterable[str]:
    """Why meshes cannot run, each reason once."""
    reasons: dict[str, int] = {}
    for why in plan.refused.values():
        reasons[why] = reasons.get(why, 0) + 1
    for why, count in list(reasons.items())[:4]:
        yield f"{count} cannot run: {why}"
    if len(reasons) > 4:
        yield f"{sum(list(reasons.values())[4:])} cannot run for {len(reasons) - 4} more reasons"


def _mesh_as_json(each: MeshPlan) -> dict[str, Any]:
    return {
        "mesh": str(each.mesh),
        "micro_batch": each.micro_batch,
        "micro_batches": each.micro_batches,
        "checkpoint": each.checkpoint,
        "fits": each.fits,
        "memory": each.memory,
        "bubble": each.bubble,
        "balance": each.balance,
        "useful": each.useful,
        "notes": list(each.notes),
        "ranks": [
            {
                **{name: value for name, value in vars(share).items() if name not in ("stages", "sent", "unknown")},
                "memory": share.memory(each.checkpoint),
                "stages": [list(stage.nodes) for stage in share.stages],
                "sent": [message._asdict() for message in share.sent],
                "not_counted": list(share.unknown),
            }
            for share in each.shares
        ],
    }


def _unknown(each: MeshPlan) -> Iterable[str]:
    return dict.fromkeys(title for share in each.shares for title in share.unknown)


def _fullest(each: MeshPlan) -> Share:
    return max(each.shares, key=lambda share: share.memory(each.checkpoint))


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for i, row in enumerate(rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield "  ".join(cells)
        if i == 0:
            yield "-" * (sum(widths) + 2 * (len(widths) - 1))
