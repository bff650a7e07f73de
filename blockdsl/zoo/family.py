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
        text: the model, with {name} for each value of a size; also {root}, the square root of dim. An encoder-decoder
            and a pair of encoders have several, by name.
    """

    source: str
    columns: str
    sizes: Mapping[str, tuple[Value, ...]]
    text: str | Mapping[str, str]

    def texts(self, size: str) -> dict[str, str]:
        """The texts of a size by name; the only one's is empty."""
        values: dict[str, Any] = dict(zip(self.columns.split(), self.sizes[size], strict=True))
        if isinstance(values.get("dim"), int):
            values["root"] = values["dim"] ** 0.5
        parts = {"": self.text} if isinstance(self.text, str) else self.text
        return {name: dedent(part).strip().format_map(values) for name, part in parts.items()}


@dataclass(frozen=True)
class PublishedModel:
    """A published model of one size.

    Attributes:
        name: of its family.
        size: its own; `entry("70b")` is another.
        sizes: of the family.
        source: the paper.
        texts: the pattern with its settings; of a model with two stacks, that of each by name.
    """

    name: str
    size: str
    sizes: tuple[str, ...]
    source: str
    texts: Mapping[str, str]
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
        return cls(name, chosen, sizes, family.source, family.texts(chosen), family)

    def __call__(self, size: str) -> PublishedModel:
        """The same model in another size. Raises UserError where there is none."""
        return self.of(self.name, self._family, size)

    @property
    def text(self) -> str:
        """The text of a model with one stack. Raises UserError where there are two, which `texts` has by name."""
        if "" not in self.texts:
            parts = " and ".join(f"{self.name}.texts['{part}']" for part in self.texts)
            raise UserError(f"{self.name} has two stacks: {parts}")
        return self.texts[""]

    def graph(self, **settings: Any) -> BlockGraph:
        """Its graph; `settings` win over the text's, as in `compile`. Raises UserError where there are two stacks."""
        from ..api import compile

        return compile(self.text, **settings)

    def graphs(self) -> dict[str, BlockGraph]:
        """The graph of each of its stacks by name."""
        from ..api import compile

        return {name: compile(text) for name, text in self.texts.items()}

    def __str__(self) -> str:
        return "\n\n".join(f"# {name}\n{text}" if name else text for name, text in self.texts.items())

    def __repr__(self) -> str:
        return f"<{self.name} {self.size}: {self.source}>"

    def _repr_svg_(self) -> str:
        from ..draw import side_by_side

        graphs = self.graphs()
        return graphs[""].to_svg() if "" in graphs else side_by_side(graphs)
