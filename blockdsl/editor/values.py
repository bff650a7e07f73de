"""The values that the language service gives. Offsets are of characters; `end` is not included."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Edit:
    """`text` in place of what stands from `start` to `end`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """What is wrong, or worth a look.

    Attributes:
        message: the problem, and the hint on the lines after it, in the words of `blockdsl check`.
        severity: "error", "warning" or "note".
        fix: the change that the hint proposes; None where it has none.
    """

    start: int
    end: int
    message: str
    severity: str
    fix: Edit | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """Something that can be written.

    Attributes:
        label: as a list shows it.
        kind: "kind", "macro", "definition", "keyword", "option", "setting", "value", "label", "tie", "stage" or "zoo".
        insert: what takes the place of the text from `start` to `end`.
        help: one line.
    """

    label: str
    kind: str
    insert: str
    start: int
    end: int
    help: str


@dataclass(frozen=True, slots=True)
class Hover:
    """What the text from `start` to `end` means, in plain lines."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Token:
    """A token; `type` is one of `scan.TYPES`."""

    start: int
    end: int
    type: str


def as_json(value: Any) -> Any:
    """These values, or lists, tuples and dicts of them, as what `json.dumps` takes."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, dict):
        return {name: as_json(each) for name, each in value.items()}
    return [as_json(each) for each in value] if isinstance(value, list | tuple) else value


def applied(text: str, edits: Iterable[Edit]) -> str:
    """The text with all edits made; their places are those of the text as it was."""
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end), reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text
