"""What the page to write patterns in knows, by one function: a request as a dict → the answer as a dict, for JSON.

Owns the requests and how an answer is put together; what is in it is the language service's, the graph's and the
drawing's. No server: that is `server`, and a page that runs Python itself calls the same function.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..draw.choices import COLORS, DETAILS
from ..draw.palette import style
from ..errors import UserError
from ..graph.costs import Cost, by_stage, row_length, sizes
from ..language.format import format_text
from ..language.macros import MACROS
from ..measurement import short
from ..registry.kinds import kinds
from ..registry.options import whole
from ..registry.state import ITEM_BYTES, item_bytes
from ..zoo import FAMILIES, entry
from .completions import completions
from .export import FORMS, exported
from .hover import hover
from .rename import NAMES, references, renamable, rename
from .values import applied, as_json
from .written import Written, read

Request = Mapping[str, Any]
Answer = dict[str, Any]

_STYLE = re.compile(r"<style>.*?</style>\n?", re.DOTALL)
_SIZE = re.compile(r' style="font-size:([\d.]+)px"')
"""What the page's policy keeps out of a picture: it has the style sheet already, and sets the sizes itself."""

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
        {"group": "Macros", "name": macro.usage, "help": macro.doc, "insert": macro.usage} for macro in MACROS.values()
    ]


def _kinds() -> list[Answer]:
    return [
        {"group": "Kinds of blocks", "name": name, "help": kind.title, "insert": name} for name, kind in kinds().items()
    ]


def _look(request: Request) -> Answer:
    """The picture of what is written, its costs, and what is to say about the text.

    `picture` is None where the text, or the one that it is held against, has a mistake.
    """
    text = _written(request, "text")
    against = None if request.get("against") is None else _written(request, "against")
    answer: Answer = {"text": text.told("" if against is None else "after")}
    if against is not None:
        answer["against"] = against.told("before")
    if text.graph is None:
        return answer | {"picture": None}
    seq_len = _length(request)
    look: dict[str, Any] = {"detail": request.get("detail", "block"), "seq_len": seq_len}
    if against is None:
        color, unfold = request.get("color", "kind"), bool(request.get("unfold"))
        drawn = text.graph.to_svg(color=color, unfold=unfold, **look)
    elif against.graph is None:
        return answer | {"picture": None}
    else:
        difference = against.graph.diff(text.graph, seq_len)
        drawn = difference.to_svg(**look)
        answer["changes"] = difference.to_text()
    answer["picture"] = _SIZE.sub(r' data-size="\1"', _STYLE.sub("", drawn))
    answer["costs"] = _costs(text, seq_len, str(request.get("dtype", "float32")))
    return answer


def _written(request: Request, name: str) -> Written:
    text = _text(request, name)
    settings = request.get("settings") or {}
    if not isinstance(settings, Mapping):
        raise UserError(f"settings must be an object of names and values, not {type(settings).__name__}")
    return read(text, tuple((name, _value(value)) for name, value in sorted(settings.items())))


def _value(value: Any) -> Any:
    """JSON has lists for what settings have as tuples."""
    return tuple(map(_value, value)) if isinstance(value, list) else value


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
    item = item_bytes(dtype)
    length = row_length(text.graph, seq_len)
    rows = by_stage(text.graph, sizes(length, 1))
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
    text = _written(request, "text")
    return exported(text, str(request.get("form")), request)


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
    "complete": _complete,
    "hover": _hover,
    "format": _format,
    "name": _name,
    "rename": _rename,
    "export": _export,
}
