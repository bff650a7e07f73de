"""What the page gives away: the picture, the page, the graph and the program, of a text as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import UserError, did_you_mean
from .written import Written


class ExportForm(NamedTuple):
    """A form of export; `make` gives its text from what is written and what the request asks for."""

    label: str
    help: str
    suffix: str
    type: str
    make: Callable[[Written, Mapping[str, Any]], str]


def exported(written: Written, form: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """A file: its suffix, its type and its content.

    Raises:
        UserError: there is no such form, or the text has a mistake.
    """
    if form not in FORMS:
        raise UserError(f"there is no export {form!r}; {did_you_mean(form, FORMS)}")
    if written.graph is None:
        raise UserError("the pattern has a mistake; mend it first")
    found = FORMS[form]
    return {"suffix": found.suffix, "type": found.type, "content": found.make(written, request)}


def _look(request: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: request[name] for name in ("unfold", "detail", "color", "seq_len") if name in request}
    return kept


def _svg(written: Written, request: Mapping[str, Any]) -> str:
    assert written.graph is not None
    return written.graph.to_svg(**_look(request)) + "\n"


def _html(written: Written, request: Mapping[str, Any]) -> str:
    assert written.graph is not None
    dtype = {"dtype": request["dtype"]} if "dtype" in request else {}
    return written.graph.to_html(**_look(request), **dtype)


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
    "svg": ExportForm("SVG", "the picture, at any size", ".svg", "image/svg+xml", _svg),
    "png": ExportForm("PNG", "the picture in pixels, light or dark as it is here", ".svg", "image/svg+xml", _svg),
    "html": ExportForm(
        "HTML", "a page with the picture, search, and each block's details", ".html", "text/html", _html
    ),
    "json": ExportForm("JSON", "the graph, for BlockGraph.from_json and commands", ".json", "application/json", _json),
    "python": ExportForm("Python", "a program that makes the model", ".py", "text/x-python", _python),
}
"""By name. A script makes PNG of the SVG, which a browser can draw."""
