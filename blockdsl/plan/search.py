"""Which meshes there are for a model, and what each rank of one has: `graph.plan(gpus=64, memory="80GB", ...)`.

Owns how counts become a rank's bytes, and which micro-batches and checkpointing a mesh gets. Counts are those of
`memory` and `traffic`, cuts those of `stages` and `local`, waiting is `schedule`'s, words are `report`'s.

Ranks that differ only along dp, fsdp, cp or tp cost the same, so a mesh has one share for each place along pp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import UserError
from ..graph.costs import Cost, node_costs, row_length
from ..graph.costs import parameters as total_parameters
from ..registry.kinds import Sizes, kind_of
from ..registry.options import whole
from ..registry.split import Split
from .context import why_whole_rows
from .local import tensor_part, tensor_splits, whole_layers
from .memory import CHECKPOINTING, Activations, StageMemory
from .mesh import Mesh
from .report import Plan
from .schedule import SCHEDULES, check_schedule
from .setup import Setup
from .shares import MeshPlan, Share
from .stages import PipelineStage, crossings, shared, stages, table_name
from .traffic import Sent, among, attended, crossing_bytes, summed_alike

if TYPE_CHECKING:
    from ..graph.graph import Graph

T = TypeVar("T")

KEPT = 4  # bytes of a number that is kept from step to step
TENSOR_RANKS = 8
"""Most ranks along tp that are tried: those of one node, whose links are fast."""


def plan_training(graph: Graph, mesh: Mesh | str | None, gpus: int | None, setup: Setup) -> Plan:
    """A model on one mesh, or on every mesh of `gpus` devices.

    Raises:
        UserError: neither or both are given, the mesh cannot run the model, or the model cannot read rows so long.
    """
    if (mesh is None) == (gpus is None):
        raise UserError("give a number of gpus, or one mesh")
    longest = graph.nx.nodes[graph.start]["max_seq_len"]
    if longest and setup.seq_len > longest:
        raise UserError(f"seq_len={setup.seq_len} is above the model's max_seq_len={longest}")
    model = _Model(graph, setup)
    if mesh is not None:
        mesh = Mesh.parse(mesh) if isinstance(mesh, str) else mesh
        return Plan(graph, setup, model.parameters, (model.on(mesh),), {})
    found, refused = [], {}
    for each in meshes(whole("gpus", gpus, 1), setup):
        try:
            found.append(model.on(each))
        except UserError as error:
            refused[each] = str(error)
    if not found:
        raise UserError(f"no mesh of {gpus} devices can run this: {next(iter(refused.values()))}")
    found.sort(key=lambda each: (each.fits is False, -round(each.useful, 3), each.sent))
    return Plan(graph, setup, model.parameters, tuple(found), refused)


def meshes(size: int, setup: Setup) -> Iterator[Mesh]:
    """Every mesh of so many ranks: at most TENSOR_RANKS along tp, and cp only where there are fewer rows than ranks."""
    divisors = [n for n in range(1, size + 1) if size % n == 0]
    for pp, dp, cp, tp in product(divisors, divisors, divisors, (n for n in divisors if n <= TENSOR_RANKS)):
        if size % (pp * dp * cp * tp) == 0:
            mesh = Mesh(pp, dp, size // (pp * dp * cp * tp), cp, tp)
            if cp == 1 or mesh.data * cp > setup.batch:
                yield mesh


class _Local:
    """One rank's share of a graph under tp, with what it costs by node."""

    def __init__(self, graph: Graph, tp: int, seq_len: int, context_len: int) -> None:
        self.splits = {} if tp == 1 else tensor_splits(graph, tp)
        if self.splits and not any(isinstance(split, Split) for split in self.splits.values()):
            raise UserError(f"tp={tp}: no block splits: {whole_layers(self.splits)}")
        self.graph = graph if tp == 1 else tensor_part(graph, tp)
        self.costs = dict(node_costs(self.graph, Sizes(1, seq_len, context_len)))
        self.flops = {node: cost.flops for node, cost in self.costs.items()}
        whole = whole_layers(self.splits)
        self.notes = (f"tp={tp}: whole on every rank: {whole}",) if whole else ()
        self.memory: dict[int, StageMemory] = {}
        self.alike, self.matrices, self.cut_matrices = {}, {}, {}
        known: dict[Any, tuple[int, int, int]] = {}  # blocks that are alike have the same
        for node in graph.nodes("block"):
            key = (graph.block(node)["kind"], *graph.block(node)["options"].items(), type(self.splits.get(node)))
            if key not in known:
                cut = _matrices(graph, node) if isinstance(self.splits.get(node), Split) else 0
                known[key] = summed_alike(graph, [node], self.splits, tp), _matrices(self.graph, node), cut
            self.alike[node], self.matrices[node], self.cut_matrices[node] = known[key]


class _Model:
    """A graph with what is the same on many meshes, counted once."""

    def __init__(self, graph: Graph, setup: Setup) -> None:
        self.graph, self.setup, self.schedule = graph, setup, SCHEDULES[setup.schedule]
        self.seq_len = row_length(graph, setup.seq_len)
        self.context_len = setup.context_len or setup.seq_len
        self.parameters = total_parameters(graph)
        self.owners = {node: first for first, nodes in graph.tied().items() for node in nodes}
        self.local = _remembered(lambda tp: _Local(graph, tp, self.seq_len, self.context_len))
        self.pieces = _remembered(lambda pp, tp, cp: _Pieces(self, pp, tp, cp).by_place)

    def on(self, mesh: Mesh) -> MeshPlan:
        """The model on a mesh.

        Raises:
            UserError: it cannot run there; the message says why.
        """
        check_schedule(self.setup.schedule, mesh)
        rows = _divided("batch", self.setup.batch, "dp × fsdp", mesh.data)
        if mesh.cp > 1 and (reason := why_whole_rows(self.graph)):
            raise UserError(f"cp={mesh.cp}: {reason}")
        _divided("seq_len", self.seq_len, "cp", mesh.cp)
        pieces = self.pieces(mesh.pp, mesh.tp, mesh.cp)
        tried = []
        for checkpoint in CHECKPOINTING if self.setup.checkpoint is None else (self.setup.checkpoint,):
            for micro_batch in self._micro_batches(rows, mesh.pp):
                found = self._planned(mesh, pieces, micro_batch, rows // micro_batch, checkpoint)
                if found.fits is not False:
                    return found
                tried.append(found)
        return min(tried, key=lambda each: each.memory)

    def _micro_batches(self, rows: int, pp: int) -> list[int]:
        """Rows of a micro-batch, to be tried in this order."""
        if (given := self.setup.micro_batch) is not None:
            _divided("rows a rank", rows, "micro_batch", given)
            return [given]
        sizes = [size for size in range(rows, 0, -1) if rows % size == 0]
        return [size for size in sizes if pp == 1 or rows // size >= 4 * pp] or [1]

    def _planned(self, mesh: Mesh, pieces: Sequence[_Piece], micro_batch: int, count: int, checkpoint: str) -> MeshPlan:
        """With so many rows in each of so many micro-batches."""
        shares = tuple(self._share(mesh, place, micro_batch, count, checkpoint) for place in enumerate(pieces))
        flops, usable = [share.flops for share in shares], self.setup.usable
        balance = sum(flops) / (max(flops) * mesh.pp) if any(flops) else 1.0
        bubble, notes = self.schedule.bubble(mesh.pp, count), self.local(mesh.tp).notes
        out = MeshPlan(mesh, micro_batch, count, checkpoint, shares, bubble, balance, None, notes)
        return out if usable is None else replace(out, fits=out.memory <= usable)

    def _share(self, mesh: Mesh, placed: tuple[int, _Piece], micro_batch: int, count: int, checkpoint: str) -> Share:
        (place, piece), item = placed, self.setup.item
        kept = -(-piece.parameters // mesh.shards)
        state = {"adamw": 2 * kept, "muon": 2 * kept - piece.matrices // mesh.shards, "sgd": 0}[self.setup.optimizer]
        largest = max(piece.blocks.values(), default=0)
        in_flight = self.schedule.in_flight(mesh.pp, count, place) if mesh.pp > 1 else 1
        # autocast keeps its copies of weights as long as what is computed with them; FSDP lets blocks' go
        shared = mesh.data * mesh.cp > 1
        of_all, of_block = (item * piece.around, 0) if shared else (item * piece.parameters, item * largest)
        of_all, of_block = (0, 0) if item == KEPT else (of_all, of_block)
        activations = {
            name: round(micro_batch * saved.bytes(in_flight, KEPT, item)) + (of_block if name == "block" else of_all)
            for name, saved in piece.saved.items()
        }
        return Share(
            piece.stages,
            piece.parameters,
            KEPT * kept,
            KEPT * kept,
            KEPT * state,
            _for_a_while(mesh, piece, item),
            activations,
            piece.cost.cache_bytes(item),
            3 * piece.cost.flops * micro_batch * count // mesh.cp,
            tuple(self._sent(mesh, piece, micro_batch, count, checkpoint)),
            piece.saved["none"].unknown,
        )

    def _sent(self, mesh: Mesh, piece: _Piece, micro_batch: int, count: int, checkpoint: str) -> Iterator[Sent]:
        """See `traffic`."""
        again = checkpoint != "none"
        summed = piece.split + piece.again[checkpoint]
        rows, item = micro_batch * count, self.setup.item
        kept, link = -(-piece.parameters // mesh.shards), "fsdp" if mesh.cp == 1 else "fsdp×cp"
        muon = KEPT * (self.setup.optimizer == "muon")
        gathered = count * (2 * item * piece.used + KEPT * piece.around) + muon * piece.matrices
        yield from among(mesh.shards, link, "gather", gathered)
        yield from among(mesh.shards, link, "scatter", count * KEPT * piece.parameters)
        yield from among(mesh.dp, "dp", "all-reduce", KEPT * kept)
        # FSDP casts what a block is given, and what it gives back; autocast what it multiplies
        back, given = (item, KEPT) if mesh.data * mesh.cp > 1 else (KEPT, item)
        once = KEPT * piece.alike + muon * piece.cut_matrices
        yield from among(mesh.tp, "tp", "all-reduce", rows * (item * summed + back * piece.split) + once)
        yield from among(mesh.pp, "pp", "send", rows * piece.crossing[given])
        yield from among(piece.sharers, "pp", "all-reduce", KEPT * piece.shared // mesh.shards)
        yield from among(mesh.cp, "cp", "gather", rows * item * (1 + again) * piece.attended)
        yield from among(mesh.cp, "cp", "scatter", rows * item * piece.attended)


class _Pieces:
    """What the ranks at each place along pp have and do, whatever the other axes, micro-batches and checkpointing."""

    def __init__(self, model: _Model, pp: int, tp: int, cp: int) -> None:
        self.model, self.local, self.pp, self.cp = model, model.local(tp), pp, cp
        self.parts = stages(self.local.graph, pp * (model.schedule.stages if pp > 1 else 1), loads=self.local.flops)
        self.tokens = model.seq_len // cp
        if cp not in self.local.memory:
            self.local.memory[cp] = StageMemory(self.local.graph, self.tokens, model.context_len)
        self.cuts = crossings(model.graph, self.parts)
        self.shared = shared(model.graph, self.parts)
        self.by_place = [self._piece(self.parts[place::pp]) for place in range(pp)]

    def _piece(self, own: tuple[PipelineStage, ...]) -> _Piece:
        """What the stages of one place have and do."""
        model, local, graph = self.model, self.local, self.local.graph
        last = own[-1].index == len(self.parts) - 1
        nodes = [node for part in own for node in part.nodes]
        ends = [*([graph.start] if own[0].index == 0 else []), *([graph.end] if last else [])]
        beside = dict.fromkeys(node for part in own for node in part.beside)
        owners = dict.fromkeys(model.owners.get(node, node) for node in nodes)
        blocks = {node: local.costs[node].parameters for node in owners if node in local.costs}
        around = sum(local.costs[node].parameters for node in (*beside, *ends) if node in local.costs)
        tables = self._tables()
        around -= sum(tables.values()) if own[0].index == 0 else 0  # those that its blocks read are theirs
        around += sum(tables[n] for n, readers in graph.value_readers.items() if not {*readers}.isdisjoint(nodes))
        if last and own[0].index > 0 and graph.nx.nodes[graph.end]["tied"]:
            around += graph.nx.nodes[graph.start]["num_tokens"] * graph.emb_dim
        costs = [local.costs[node] for node in (*nodes, *beside, *ends) if node in local.costs]
        used = sum(blocks[owner] for node in nodes if (owner := model.owners.get(node, node)) in blocks)
        matrices = sum(local.matrices.get(node, 0) for node in blocks)
        if (encoder := graph.encoder) is not None:  # in one stage
            theirs = dict(node_costs(encoder, Sizes(1, model.context_len, 0)))
            uses = {node: nodes for node, nodes in encoder.tied().items() if node in theirs}
            blocks |= {f"encoder {node}": theirs[node].parameters for node in uses}
            used += sum(theirs[node].parameters * len(nodes) for node, nodes in uses.items())
            matrices += sum(_matrices(encoder, node) for node in uses if encoder.node_type(node) == "block")
            around += sum(cost.parameters for node, cost in theirs.items() if node not in uses)
            costs.append(Cost(flops=sum(cost.flops for cost in theirs.values())))
        read = attended(graph, nodes, model.seq_len, self.cp) if self.cp > 1 else {}
        by_stage: dict[int, int] = {}  # of the pattern
        for node, count in read.items():
            at = graph.nx.nodes[node]["stage"]
            by_stage[at] = by_stage.get(at, 0) + count
        # of what is read, that of a part which is computed again is there at once
        at_once = {"none": 0, "block": max(read.values(), default=0), "stage": max(by_stage.values(), default=0)}
        saved: dict[str, Activations] = {}
        for name in CHECKPOINTING:
            each = [local.memory[self.cp].saved(part, last and part is own[-1], name) for part in own]
            saved[name] = Activations(
                sum(part.streams for part in each),
                sum(part.held for part in each) + (sum(read.values()) if name == "none" else 0),
                max(part.working_streams for part in each),
                max(part.working for part in each) + at_once[name],
                tuple(dict.fromkeys(title for part in each for title in part.unknown)),
            )
        sizes = Sizes(1, self.tokens, model.context_len)
        cuts = [self.cuts[i] for part in own for i in (part.index, part.index - 1) if 0 <= i < len(self.cuts)]
        common = {node: where for node, where in self.shared.items() if {part.index for part in own} & {*where}}
        splits = [(node, local.splits.get(node)) for node in nodes]
        sums = {node: graph.dim + split.sums for node, split in splits if isinstance(split, Split)}
        blocks_of = ((graph.nx.nodes[node]["stage"], node) for node in nodes if graph.node_type(node) == "block")
        last_of_each = {*dict(blocks_of).values()}  # by the pattern's stage
        return _Piece(
            stages=own,
            blocks=blocks,
            around=around,
            used=used,
            matrices=matrices,
            cut_matrices=sum(local.cut_matrices.get(node, 0) for node in blocks),
            cost=sum(costs, Cost()),
            saved=saved,
            split=self.tokens * sum(sums.values()),
            again={
                "none": 0,
                "block": self.tokens * (sum(sums.values()) - len(sums) * graph.dim),
                "stage": self.tokens * (sum(sums.values()) - len(last_of_each & {*sums}) * graph.dim),
            },
            alike=sum(local.alike.get(node, 0) for node in blocks),
            attended=sum(read.values()),
            crossing={
                item: sum(crossing_bytes(graph, value, sizes, item, self.cp) for cut in cuts for value in cut)
                for item in {model.setup.item, KEPT}
            },
            shared=sum(self._shared_numbers(node) for node in common),
            sharers=max((len({i % self.pp for i in where}) for where in common.values()), default=1),
        )

    def _tables(self) -> dict[int, int]:
        """Parameters of each table of values."""
        graph = self.local.graph
        tokens = graph.nx.nodes[graph.start].get("num_tokens") or 0
        return {number: tokens * features for number, features in graph.value_embeds.items()}

    def _shared_numbers(self, node: str) -> int:
        """Parameters of what several stages share."""
        graph = self.local.graph
        if node not in graph.nx:
            return next(count for number, count in self._tables().items() if table_name(number) == node)
        if node == graph.start:
            return int(graph.nx.nodes[node]["num_tokens"]) * graph.emb_dim
        return self.local.costs[node].parameters


@dataclass(frozen=True)
class _Piece:
    """What the stages of one place along pp have and do, in numbers, of one row where it grows with rows.

    Attributes:
        blocks: parameters of each block or read, by its owner.
        around: parameters of what is around the blocks.
        used: parameters of blocks, tied ones as often as they run.
        matrices: parameters of blocks that are matrices.
        cut_matrices: those of layers that split, of all ranks along tp.
        split: numbers that tp sums in one direction.
        again: by checkpointing, those summed again forward: all but the result of the last block of what is recomputed.
        alike: parameters that ranks along tp hold alike within split layers.
        attended: keys and values that cp gathers.
        crossing: what is sent to the next stage and back to the one before, by the bytes of a number of keys and
            values.
        shared, sharers: parameters that other places have too, and how many places have them.
    """

    stages: tuple[PipelineStage, ...]
    blocks: dict[str, int]
    around: int
    used: int
    matrices: int
    cut_matrices: int
    cost: Cost
    saved: dict[str, Activations]
    split: int
    again: Mapping[str, int]
    alike: int
    attended: int
    crossing: Mapping[int, int]
    shared: int
    sharers: int

    @property
    def parameters(self) -> int:
        return sum(self.blocks.values()) + self.around


def _for_a_while(mesh: Mesh, piece: _Piece, item: int) -> int:
    """Bytes of parameters and gradients that data ranks hold beside their own; those of blocks have `item` a number.

    FSDP gathers a block while the one before it runs, and sums its gradients. What goes through an all-reduce along dp
    is kept until the backward pass ends; beside a pipeline whole gradients until the last micro-batch, too.
    """
    largest = max(piece.blocks.values(), default=0)
    gathered = 0 if mesh.shards == 1 else KEPT * (piece.around + largest) + 2 * item * largest
    times = 0 if mesh.dp == 1 else 2 if mesh.pp > mesh.shards == 1 else 1
    return gathered + times * KEPT * -(-piece.parameters // mesh.shards)


def _matrices(graph: Graph, node: str) -> int:
    """Parameters of a block that are matrices."""
    kind = kind_of(graph.block(node)["kind"])
    shapes = kind.shapes(graph.completed(node))
    return sum(math.prod(shape) for shape in shapes.values() if len(shape) == 2)


def _divided(name: str, number: int, by: str, ranks: int) -> int:
    if number % ranks:
        raise UserError(f"{name}={number} is not divisible by {by}={ranks}")
    return number // ranks


def _remembered(function: Callable[..., T]) -> Callable[..., T]:
    """The function, called once for the same numbers; what it refuses, it refuses again."""
    known: dict[tuple[int, ...], T | UserError] = {}

    def again(*numbers: int) -> T:
        if numbers not in known:
            try:
                known[numbers] = function(*numbers)
            except UserError as error:
                known[numbers] = error
        found = known[numbers]
        if isinstance(found, UserError):
            raise found
        return found

    return again
