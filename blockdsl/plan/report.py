"""A plan: the meshes on which a model can be trained, in words, as JSON, and as the pattern with its cuts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .memory import CHECKPOINTING
from .schedule import SCHEDULES
from .stages import restaged

if TYPE_CHECKING:
    from ..graph.graph import Graph
    from .mesh import Mesh
    from .setup import Setup
    from .shares import MeshPlan, Share

SHOWN = 12
"""Meshes that a table shows unless it is to show every one."""


@dataclass(frozen=True)
class Plan:
    """A model on every mesh of so many devices, or on one.

    Attributes:
        graph: the model.
        parameters: of the whole model.
        meshes: those on which it can run, the best first: those that fit, by `useful`, then by what is sent.
        refused: mesh → why it cannot run there.
    """

    graph: Graph = field(repr=False, compare=False)
    setup: Setup
    parameters: int
    meshes: tuple[MeshPlan, ...]
    refused: Mapping[Mesh, str]

    @property
    def best(self) -> MeshPlan:
        """The first of `meshes`."""
        return self.meshes[0]

    def cut(self, each: MeshPlan | None = None, titled: bool = True) -> Any:
        """The graph in the stages of a mesh, by default the best: its text has `|` at the cuts, and drawings show them.

        Args:
            titled: each stage is called by its ranks and what they hold.
        """
        each = self.best if each is None else each
        placed = {stage: place for place, share in enumerate(each.shares) for stage in share.stages}
        parts = sorted(placed, key=lambda stage: stage.index)
        names = [_title(each, placed[stage], self.setup) if titled else None for stage in parts]
        return restaged(self.graph, parts, names)

    def to_text(self, every: bool = False) -> str:
        """A table of the best meshes or of every one; or, of a plan for one mesh, all about it."""
        head = _heading(self)
        if len(self.meshes) == 1 and not self.refused:
            return "\n".join([*head, *_details(self.best, self.setup)])
        shown = self.meshes if every else self.meshes[:SHOWN]
        lines = [*head, "", *_columns([_TITLES, *map(_row, shown)]), ""]
        if self.setup.memory is not None:
            fitting = sum(each.fits is not False for each in self.meshes)
            lines.append(f"{fitting} of {len(self.meshes)} meshes fit; ✗ does not")
        if len(shown) < len(self.meshes):
            lines.append(f"{len(self.meshes) - len(shown)} more are not shown; --all shows them")
        lines += _refusals(self.refused)
        return "\n".join(lines + [_left_out(kind) for kind in dict.fromkeys(k for m in self.meshes for k in m.unknown)])

    def as_json(self) -> dict[str, Any]:
        """Of plain values, for `json.dumps`."""
        return {
            "pattern": self.graph.pattern,
            "parameters": self.parameters,
            **asdict(self.setup),
            "meshes": [_mesh_as_json(each) for each in self.meshes],
            "refused": {str(mesh): why for mesh, why in self.refused.items()},
        }

    def __str__(self) -> str:
        return self.to_text()


def in_words(number: float) -> str:
    """Bytes in words, as makers of devices count: `79.2 GB`."""
    for unit, factor in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            return f"{number / factor:,.1f} {unit}"
    return f"{number:,.0f} B"


def _title(each: MeshPlan, place: int, setup: Setup) -> str:
    """Of a place along pp: its ranks, and what they hold."""
    share, ranks = each.shares[place], each.mesh.size // each.mesh.pp
    which = f"rank {place}" if ranks == 1 else f"ranks {place * ranks}-{(place + 1) * ranks - 1}"
    of = "" if setup.memory is None else f" of {in_words(float(setup.memory))}"
    of += " each" if ranks > 1 else ""
    count = share.parameters
    many = f"{count / 1e9:,.2f} B" if count >= 1e9 else f"{count / 1e6:,.2f} M"
    return f"{which} · {many} parameters · {in_words(share.memory(each.checkpoint))}{of}"


def _heading(plan: Plan) -> list[str]:
    setup = plan.setup
    words = f"{setup.precision} · {setup.optimizer} · {setup.schedule}"
    if setup.memory is not None:
        words += (
            f" · {in_words(float(setup.memory))} a device, of which {setup.reserve:.0%} is left to what is not counted"
        )
    return [f"{plan.parameters:,} parameters · {setup.batch:,} rows of {setup.seq_len:,} tokens a step", words]


_TITLES = ("mesh", "micro-batches", "recomputed", "memory", "kept", "gathered", "activations", "useful", "sent a step")


def _row(each: MeshPlan) -> tuple[str, ...]:
    share = max(each.shares, key=lambda share: share.memory(each.checkpoint))
    kept = share.parameter_bytes + share.gradient_bytes + share.optimizer_bytes
    amounts = (each.memory, kept, share.gathered_bytes, share.activation_bytes[each.checkpoint])
    return (
        str(each.mesh) + (" ✗" if each.fits is False else ""),
        f"{each.micro_batches} × {each.micro_batch}",
        each.checkpoint,
        *map(in_words, amounts),
        f"{each.useful:.0%}",
        in_words(each.sent),
    )


def _details(each: MeshPlan, setup: Setup) -> Iterable[str]:
    mesh, schedule = each.mesh, SCHEDULES[setup.schedule]
    verdict = {True: "fits", False: "does not fit", None: "no memory given"}[each.fits]
    ranks, count, rows = mesh.size, each.micro_batches, each.micro_batch
    counts = (_counted(ranks, "rank"), f"{_counted(count, 'micro-batch', 'es')} of {_counted(rows, 'row')}")
    yield " · ".join((f"mesh {mesh}", *counts, verdict))
    if mesh.pp > 1:
        yield f"{setup.schedule}: {schedule.doc}"
        balance = f"their mean is {each.balance:.1%} of the largest"
        yield f"a rank waits {each.bubble:.1%} of a step, were its stages equal; {balance}"
    yield from each.notes
    for place, share in enumerate(each.shares):
        yield ""
        yield _title(each, place, setup)
        yield f"  blocks         {_spans(share)}"
        yield f"  parameters     {in_words(share.parameter_bytes)}"
        yield f"  gradients      {in_words(share.gradient_bytes)}"
        yield f"  optimiser      {in_words(share.optimizer_bytes)}"
        if share.gathered_bytes:
            yield f"  gathered       {in_words(share.gathered_bytes)}"
        saved = (f"{name} {in_words(share.activation_bytes[name])}" for name in CHECKPOINTING)
        yield f"  activations    {' · '.join(saved)}, by what is recomputed"
        yield f"  cache a row    {in_words(share.cache_bytes)}"
        yield f"  FLOPs a step   {share.flops:,}"
        for message in share.sent:
            yield f"  {message.link + ' ' + message.operation:<14} {in_words(message.sent)}"
    yield from map(_left_out, each.unknown)


def _counted(number: int, what: str, plural: str = "s") -> str:
    return f"{number:,} {what}" + plural * (number != 1)


def _left_out(kind: str) -> str:
    return f"activations leave out what {kind} saves, which it does not say"


def _spans(share: Share) -> str:
    """The blocks of each stage, first and last."""
    return ", ".join(
        stage.nodes[0] if len(stage.nodes) == 1 else f"{stage.nodes[0]} to {stage.nodes[-1]} ({len(stage.nodes)})"
        for stage in share.stages
        if stage.nodes
    )


def _refusals(refused: Mapping[Mesh, str]) -> Iterable[str]:
    """Why meshes cannot run, each reason once, the most frequent first."""
    reasons = Counter(refused.values()).most_common()
    yield from (f"{count} cannot run: {why}" for why, count in reasons[:4])
    if reasons[4:]:
        yield f"{sum(count for _, count in reasons[4:])} cannot run for {len(reasons) - 4} other reasons"


def _mesh_as_json(each: MeshPlan) -> dict[str, Any]:
    return {
        "mesh": str(each.mesh),
        "micro_batch": each.micro_batch,
        "micro_batches": each.micro_batches,
        "checkpoint": each.checkpoint,
        "fits": each.fits,
        "memory": each.memory,
        "sent": each.sent,
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


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for i, row in enumerate(rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield "  ".join(cells)
        if i == 0:
            yield "-" * (sum(widths) + 2 * (len(widths) - 1))
