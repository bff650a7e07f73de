"""What the page gives away: the picture, the page, the graph and the program, of a text as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UserError, did_you_mean
from .written import Written

if TYPE_CHECKING:
    from ..api import GraphDiff


class ExportForm(NamedTuple):
    """A form of export: its text from what is written and what the request asks for.

    `differing` gives that of the difference, which the page shows where a second pattern is held against the first.
    """

    label: str
    help: str
    suffix: str
    type: str
    make: Callable[[Written, Mapping[str, Any]], str]
    differing: Callable[[GraphDiff, Mapping[str, Any]], str] | None = None


def exported(written: Written, form: str, request: Mapping[str, Any], against: Written | None = None) -> dict[str, Any]:
    """A file: its suffix, its type and its content.

    Args:
        against: what it is held against, where the page shows the difference: pictures are of that.

    Raises:
        UserError: there is no such form, or a text has a mistake.
    """
    if form not in FORMS:
        raise UserError(f"there is no export {form!r}; {did_you_mean(form, FORMS)}")
    if written.graph is None:
        raise UserError("the pattern has a mistake; mend it first")
    found = FORMS[form]
    if against is None or found.differing is None:
        content = found.make(written, request)
    elif against.graph is None:
        raise UserError("the pattern that it is held against has a mistake; mend it first")
    else:
        content = found.differing(against.graph.diff(written.graph, request.get("seq_len", 1024)), request)
    return {"suffix": found.suffix, "type": found.type, "content": content}


_DIFFERING = ("detail", "seq_len")
"""What a picture of a difference is asked for; its colours and its folds are its own."""


def _look(request: Mapping[str, Any], names: Sequence[str] = (*_DIFFERING, "unfold", "color")) -> dict[str, Any]:
    return {name: request[name] for name in names if name in request}


def _svg_of_difference(diff: GraphDiff, request: Mapping[str, Any]) -> str:
    return diff.to_svg(**_look(request, _DIFFERING)) + "\n"


def _html_of_difference(diff: GraphDiff, request: Mapping[str, Any]) -> str:
    return diff.to_html(**_look(request, (*_DIFFERING, "dtype")))


def _svg(written: Written, request: Mapping[str, Any]) -> str:
    assert written.graph is not None
    return written.graph.to_svg(**_look(request)) + "\n"


def _html(written: Written, request: Mapping[str, Any]) -> str:
    assert written.graph is not None
    return written.graph.to_html(**_look(request), **_look(request, ("dtype",)))


def _json(written: Written, request: Mapping[str, Any]) -> str:
    assert written.graph is not None
    return written.graph.to_json() + "\n"


def _python(written: Written, request: Mapping[str, Any]) -> str:
    """A program that makes the graph and the module of it."""
    quoted = written.text.strip("\n").replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    quoted += "\n" if "\n" in quoted or quoted.endswith('"') else ""
    start = "\n" if "\n" in quoted else ""
    given = "".join(f", {name}={value!r}" for name, value in written.settings.items())
    return "\n".join(
        [
            "import blockdsl",
            "import xt_blocks",
            "",
            f'pattern = """{start}{quoted}"""',
            f"graph = blockdsl.compile(pattern{given})",
            "model = xt_blocks.lower(graph)",
            "print(graph)",
            "",
        ]
    )


FORMS = {
    "svg": ExportForm("SVG", "the picture, at any size", ".svg", "image/svg+xml", _svg, _svg_of_difference),
    "png": ExportForm(
        "PNG", "the picture in pixels, light or dark as it is here", ".svg", "image/svg+xml", _svg, _svg_of_difference
    ),
    "html": ExportForm(
        "HTML",
        "a page with the picture, search, and each block's details",
        ".html",
        "text/html",
        _html,
        _html_of_difference,
    ),
    "json": ExportForm("JSON", "the graph, for BlockGraph.from_json and commands", ".json", "application/json", _json),
    "python": ExportForm("Python", "a program that makes the model", ".py", "text/x-python", _python),
}
"""By name. A script makes PNG of the SVG, which a browser can draw."""
