"""One HTML page: the picture, the pattern's text and what there is to know of each node.

The page is one file that asks for nothing else. All that comes from the graph is in one piece of JSON, deflated and in
base 64: a hundred unfolded blocks are some kilobytes so, and no text in it can end a script or start a tag.
"""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ...graph.costs import by_stage, row_length, sizes
from ..color.heat import Heat
from ..color.palette import style
from ..layout.picture import scene
from ..layout.scene import NAMELESS, Scene
from ..words.facts import Table
from ..words.spans import bits
from .packed import Packed
from .streams import draw_text
from .svg import escape, svg
from .text import draw

if TYPE_CHECKING:
    from ...graph.graph import Graph
    from ...measurement import Measurement


def html(
    graphs: Mapping[str, Graph],
    drawn: Callable[..., Scene] | None = None,
    *,
    model: Graph | None = None,
    unfold: bool | None = None,
    overlay: Measurement | None = None,
    seq_len: int = 1024,
    dtype: Any = "float32",
    notes: Mapping[str, Mapping[str, str]] | None = None,
    **look: Any,
) -> str:
    """The page of graphs side by side, each under its name; one alone may be called "".

    Args:
        drawn: draws them otherwise, with `unfold` and `seq_len`.
        model: of which they are the streams.
        unfold: whether it opens with every block drawn; None: where there is an overlay.
        overlay: a measurement, whose numbers are on the blocks.
        seq_len, dtype: of the FLOPs and the bytes of the cache.
        notes: name of a graph → node → what is to say of it first.
        look: the other options of `BlockGraph.to_svg`.
    """
    unfold = overlay is not None if unfold is None else unfold
    draw_all = partial(scene, graphs, model, overlay=overlay) if drawn is None else drawn
    scenes = [draw_all(unfold=each, seq_len=seq_len, **look) for each in (False, True)]
    notes = _numbers(graphs, overlay) if notes is None else notes
    table = Table(seq_len, dtype)
    lengths = sorted({row_length(graph, seq_len) for graph in graphs.values()})
    for name, graph in graphs.items():
        table.add(graph, name, notes.get(name, {}))
    place = {node: i for i, (node, _) in enumerate(table.nodes)}
    packed = Packed()
    folded, unfolded = (_packed_scene(scene, packed, place) for scene in scenes)
    data = {
        "title": scenes[0].title,
        "at": f"{' and '.join(f'{n:,}' for n in lengths)} tokens",
        "dtype": str(dtype).removeprefix("torch."),
        "unfolded": unfold,
        "style": style(),
        "shapes": packed.shapes,
        "pictures": [folded] if folded == unfolded else [folded, unfolded],
        "nodes": table.nodes,
        "rows": table.rows,
        "texts": [(name, _text(graph, name, place)) for name, graph in graphs.items()],
        "stages": [(name, _stages(graph, seq_len, table.bytes)) for name, graph in graphs.items()],
    }
    parts = {
        "title": escape(scenes[0].title),
        "style": _trimmed("page.css"),
        "data": _packed(data),
        "script": _trimmed("page.js"),
        "text": escape("\n\n".join(_as_text(graphs, model))),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _file("page.html"))


def _as_text(graphs: Mapping[str, Graph], model: Graph | None) -> list[str]:
    """The drawing with characters."""
    return [f"{name}\n{draw(graph)}".strip() for name, graph in graphs.items()] if model is None else [draw_text(model)]


def _numbers(graphs: Mapping[str, Graph], overlay: Measurement | None) -> dict[str, dict[str, str]]:
    """What was measured of each node."""
    if overlay is None:
        return {}
    heats = {name: Heat(overlay, f"{name}." if name else "") for name in graphs}
    return {name: {node: line for node in graphs[name].nx if (line := heat.line(node))} for name, heat in heats.items()}


def _packed_scene(scene: Scene, packed: Packed, place: Mapping[str, int]) -> dict[str, Any]:
    """The picture without what the page has elsewhere, and the nodes of its groups in the order they have there."""
    boxes = [box._replace(nodes=box.nodes if box.look.type in NAMELESS else (), more=None) for box in scene.boxes]
    edges = [edge._replace(source="", target="") for edge in scene.edges]
    text = svg(replace(scene, boxes=boxes, edges=edges)).replace(f"<style>\n{style()}\n</style>\n", "")
    named = [box.nodes for box in scene.boxes if box.look.type not in NAMELESS]
    return {"lines": packed.add(text), "boxes": [[place[node] for node in nodes] for nodes in named]}


def _text(graph: Graph, name: str, place: Mapping[str, int]) -> list[tuple[str, list[int]]]:
    prefix = f"{name}." if name else ""
    return [(bit.text, [place[prefix + node] for node in bit.nodes]) for bit in bits(graph)]


def _stages(graph: Graph, seq_len: int, item: int) -> list[tuple[str, ...]]:
    """Costs by stage: its title, blocks, parameters, FLOPs, bytes of the cache."""
    return [
        (title, *map(str, (cost.blocks, cost.parameters, cost.flops, cost.cache_bytes(item))))
        for title, cost in by_stage(graph, sizes(seq_len, 1))
    ]


def _packed(data: dict[str, Any]) -> str:
    plain = json.dumps(data, separators=(",", ":"))
    return b64encode(zlib.compress(plain.encode(), 9)).decode()


def _trimmed(name: str) -> str:
    """A file without its comments, which have lines of their own, and without indentation."""
    lines = [line.strip() for line in _file(name).splitlines()]
    return "".join(f"{line}\n" for line in lines if line and not line.startswith(("//", "/*")))


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
