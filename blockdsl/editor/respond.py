"""What the page to write patterns in knows, by one function: a request as a dict → the answer as a dict, for JSON.

Owns the requests and how an answer is put together; what is in it is the language service's, the graph's and the
drawing's. No server: that is `server`, and a page that runs Python itself calls the same function.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from ..draw.choices import COLORS, DETAILS
from ..draw.color.palette import style
from ..draw.forms.pieces import Known, scene_pieces
from ..draw.layout.difference import difference
from ..draw.layout.picture import scene
from ..draw.layout.scene import NAMELESS, Scene
from ..errors import UserError
from ..graph.costs import Cost, by_stage, row_length, sizes
from ..language.format import format_text
from ..language.macros import MACROS
from ..measurement import short
from ..registry.kinds import Kind, kinds
from ..registry.options import whole
from ..registry.state import ITEM_BYTES, item_bytes
from ..zoo import FAMILIES, entry
from .completions import completions
from .export import FORMS, exported
from .hover import hover
from .rename import NAMES, references, renamable, rename
from .scan import TYPES
from .values import applied, as_json
from .written import Written, read

Request = Mapping[str, Any]
Answer = dict[str, Any]

_SIZE = re.compile(r' style="font-size:([\d.]+)px"')
"""What the page's policy keeps out of a picture; it sets the sizes itself."""

LONGEST = 10**12  # tokens a row
MOST = 60  # completions: more than anyone reads


def respond(request: Request) -> Answer:
    """The answer to a request of the page.

    Args:
        request: `do` says which of ACTIONS; the others are what that one reads. `text` is a pattern, `settings` those
            given beside it as `compile` takes them, `against` a second pattern. Offsets count a string's characters.

    Returns:
        `ok`, and where it is false the `problem` in words; else what the action gives.
    """
    action = ACTIONS.get(str(request.get("do")))
    if action is None:
        return {"ok": False, "problem": f"there is no request {request.get('do')!r}; there are {', '.join(ACTIONS)}"}
    try:
        return {"ok": True, **action(request)}
    except (UserError, TypeError) as error:
        return {"ok": False, "problem": str(error)}


def _start(request: Request) -> Answer:
    """What never changes: the picture's colours, the menu, and what can be chosen."""
    return {
        "style": style(),
        "menu": [*_models(), *_macros(), *_kinds()],
        "forms": [{"name": name, "label": form.label, "help": form.help} for name, form in FORMS.items()],
        "details": DETAILS,
        "colors": COLORS,
        "dtypes": list(ITEM_BYTES),
        "types": list(TYPES),
    }


def _models() -> list[Answer]:
    found = []
    for name, family in FAMILIES.items():
        for size in family.sizes:
            title = f"{name}-{size}" if size else name
            found.append({"group": "Models", "name": title, "help": family.source, "text": entry(name)(size).text})
    return found


def _macros() -> list[Answer]:
    return [
        {"group": "Macros", "name": macro.usage, "help": macro.doc, "insert": macro.example}
        for macro in MACROS.values()
    ]


def _kinds() -> list[Answer]:
    return [
        {"group": "Kinds of blocks", "name": name, "help": kind.title, "insert": name} for name, kind in kinds().items()
    ]


def _look(request: Request) -> Answer:
    """The picture of what is written, in pieces, and its costs.

    `picture` is None where the text, or the one that it is held against, has a mistake. `known` says what the page has
    been told, as `pieces.Known`; without it, all of the picture is new.
    """
    text, drawn = _written(request, "text"), _picture(request)
    if drawn is None or text.graph is None:
        return {"picture": None}
    picture = scene_pieces(drawn.scene, _known(request))
    answer: Answer = {"picture": picture | {"upper": _SIZE.sub(r' data-size="\1"', picture["upper"])}}
    if drawn.changes:
        answer["changes"] = drawn.changes
    answer["costs"] = _costs(text, _length(request), str(request.get("dtype", "float32")))
    return answer


def _known(request: Request) -> Known:
    said = request.get("known") or {}
    if not isinstance(said, Mapping):
        raise UserError(f"known must be an object of a name and numbers, not {type(said).__name__}")
    counts = (whole(name, said.get(name, 0), 0) for name in ("shapes", "paths", "picture"))
    return Known(str(said.get("name", "")), *counts)


def _read(request: Request) -> Answer:
    """What is to say about the text of the same request, and that it is held against: asked for after the picture."""
    text = _written(request, "text")
    if request.get("against") is None:
        return {"text": text.told("")}
    return {"text": text.told("after"), "against": _written(request, "against").told("before")}


def _tip(request: Request) -> Answer:
    """What there is to know of a node of the picture that `look` gives of the same request."""
    drawn = _picture(request)
    boxes = () if drawn is None else (box for box in drawn.scene.boxes if box.look.type not in NAMELESS)
    return {"text": next((box.tip for box in boxes if box.node == request.get("node")), "")}


class _Drawn(NamedTuple):
    """A picture, and how its two texts differ."""

    scene: Scene
    changes: str


def _picture(request: Request) -> _Drawn | None:
    text, against = _given(request, "text"), None if request.get("against") is None else _given(request, "against")
    detail, color = str(request.get("detail", "block")), str(request.get("color", "kind"))
    return _drawn(text, against, detail, color, bool(request.get("unfold")), _length(request))


@lru_cache(maxsize=2)
def _drawn(text: _Given, against: _Given | None, detail: str, color: str, unfold: bool, seq_len: int) -> _Drawn | None:
    """The picture, kept for what is asked of it next; None where a text has a mistake."""
    written = read(*text)
    if written.graph is None:
        return None
    if against is None:
        own = scene(written.streams, written.graph, color=color, unfold=unfold, detail=detail, seq_len=seq_len)
        return _Drawn(own, "")
    before = read(*against).graph
    if before is None:
        return None
    diff = before.diff(written.graph, seq_len)
    return _Drawn(difference(diff, detail=detail, seq_len=seq_len), diff.to_text())


_Given = tuple[str, str, tuple[Kind, ...]]
"""A text, the settings beside it and the kinds that there are, as `read` takes them."""


def _written(request: Request, name: str) -> Written:
    return read(*_given(request, name))


def _given(request: Request, name: str) -> _Given:
    text = _text(request, name)
    settings = request.get("settings") or {}
    if not isinstance(settings, Mapping):
        raise UserError(f"settings must be an object of names and values, not {type(settings).__name__}")
    return text, json.dumps(dict(settings), sort_keys=True), tuple(kinds().values())


def _text(request: Request, name: str) -> str:
    text = request.get(name)
    if not isinstance(text, str):
        raise UserError(f"{name} is the text of a pattern")
    return text


def _length(request: Request) -> int:
    seq_len = whole("seq_len", request.get("seq_len", 1024))
    if seq_len > LONGEST:
        raise UserError(f"seq_len is at most {LONGEST:,}")
    return seq_len


def _costs(text: Written, seq_len: int, dtype: str) -> Answer:
    """By stage and of all, each as (short, exact)."""
    assert text.graph is not None
    graph = text.streams.get("", text.graph)  # the picture's, which has them already; two streams have none in common
    item = item_bytes(dtype)
    length = row_length(graph, seq_len)
    rows = by_stage(graph, sizes(length, 1))
    total = sum((cost for _, cost in rows), Cost())
    return {
        "seq_len": length,
        "dtype": dtype,
        "stages": [{"stage": name, **_counts(cost, length, item)} for name, cost in rows],
        "total": _counts(total, length, item),
    }


def _counts(cost: Cost, seq_len: int, item: int) -> Answer:
    counts = {
        "parameters": cost.parameters,
        "active": cost.active if cost.idle else 0,
        "flops": round(cost.flops / max(seq_len, 1)),
        "cache": cost.cache_bytes(item),
    }
    return {"blocks": cost.blocks, **{name: (short(count), f"{count:,}") for name, count in counts.items() if count}}


def _export(request: Request) -> Answer:
    against = None if request.get("against") is None else _written(request, "against")
    return exported(_written(request, "text"), str(request.get("form")), request, against)


def _complete(request: Request) -> Answer:
    found = completions(_text(request, "text"), whole("offset", request.get("offset", 0)))
    return {"completions": as_json(found[:MOST])}


def _hover(request: Request) -> Answer:
    found = hover(_text(request, "text"), whole("offset", request.get("offset", 0)))
    return {"text": "" if found is None else found.text}


def _format(request: Request) -> Answer:
    return {"text": format_text(_text(request, "text"))}


def _name(request: Request) -> Answer:
    """What can be renamed at a place: what it is, its name, and how often the text has it."""
    text, offset = _text(request, "text"), whole("offset", request.get("offset", 0))
    found = renamable(text, offset)
    what = NAMES[found.type].removeprefix("a ")
    return {"what": what, "name": found.text, "places": len(references(text, offset))}


def _rename(request: Request) -> Answer:
    """The text with another name, and where in it the name is that was at `offset`."""
    text, name = _text(request, "text"), _text(request, "name")
    offset = whole("offset", request.get("offset", 0))
    edits = rename(text, offset, name)
    moved = sum(len(edit.text) - (edit.end - edit.start) for edit in edits if edit.end < offset)
    here = next(edit.start for edit in edits if edit.start <= offset <= edit.end)
    return {"text": applied(text, edits), "offset": here + moved}


ACTIONS: dict[str, Callable[[Request], Answer]] = {
    "start": _start,
    "look": _look,
    "read": _read,
    "tip": _tip,
    "complete": _complete,
    "hover": _hover,
    "format": _format,
    "name": _name,
    "rename": _rename,
    "export": _export,
}
