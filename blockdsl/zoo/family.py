"""A family of models: one text for all of its sizes, and an entry, which is one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from ..errors import UserError, did_you_mean

if TYPE_CHECKING:
    from ..api import BlockGraph

Value = int | float | str


@dataclass(frozen=True)
class ModelFamily:
    """Models that are alike but for their sizes.

    Args:
        source: the paper.
        columns: names of the values that a size has, with spaces between.
        sizes: by name, the usual one first.
        text: the model, with {name} for each value of a size; also {root}, the square root of dim.
    """

    source: str
    columns: str
    sizes: Mapping[str, tuple[Value, ...]]
    text: str

    def text_of(self, size: str) -> str:
        """The text of a size."""
        values: dict[str, Any] = dict(zip(self.columns.split(), self.sizes[size], strict=True))
        if isinstance(values.get("dim"), int):
            values["root"] = values["dim"] ** 0.5
        return dedent(self.text).strip().format_map(values)


@dataclass(frozen=True)
class PublishedModel:
    """A published model of one size.

    Attributes:
        name: of its family.
        size: its own; `entry("70b")` is another.
        sizes: of the family.
        source: the paper.
        text: the pattern with its settings.
    """

    name: str
    size: str
    sizes: tuple[str, ...]
    source: str
    text: str
    _family: ModelFamily

    @classmethod
    def of(cls, name: str, family: ModelFamily, size: str | None = None) -> PublishedModel:
        """The entry of a family's size, by default the first.

        Raises:
            UserError: there is no such size.
        """
        sizes = tuple(family.sizes)
        chosen = sizes[0] if size is None else size.lower()
        if chosen not in sizes:
            hint = did_you_mean(chosen, sizes) or f"there are {', '.join(sizes)}"
            raise UserError(f"{name} has no size '{size}'; {hint}")
        return cls(name, chosen, sizes, family.source, family.text_of(chosen), family)

    def __call__(self, size: str) -> PublishedModel:
        """The same model in another size. Raises UserError where there is none."""
        return self.of(self.name, self._family, size)

    def graph(self, **settings: Any) -> BlockGraph:
        """Its graph; `settings` win over the text's, as in `compile`."""
        from ..api import compile

        return compile(self.text, **settings)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<{self.name} {self.size}: {self.source}>"

    def _repr_svg_(self) -> str:
        return self.graph().to_svg()
