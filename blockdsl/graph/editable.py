"""The common edits as methods, which change a graph in place; see `edit`."""

from __future__ import annotations

from . import edit as edits
from .graph import Graph


class Editable(Graph):
    """A graph with these methods."""

    def insert(self, after: str, pattern: str) -> list[str]:
        """Put a pattern after a node, in place: `g.insert("f3", "f(glu)")`. Returns the new nodes.

        What followed the node follows the pattern, under the stack's settings. A label after the node, and an edge
        from it over other nodes, still are of the place right after the node.

        Args:
            after: a node; one of an encoder is `encoder.f3`.

        Raises:
            PatternError: the text is at fault.
            UserError: there is no such node, or nothing can follow it.
            GraphError: the graph could not be lowered then; it stays as it was.
        """
        graph, node, prefix = self._at(after)
        return [prefix + new for new in edits.insert(graph, node, pattern)]

    def remove(self, node: str) -> None:
        """Take a node out, in place: what followed it follows what it followed.

        Raises:
            UserError: there is no such node, or it cannot go.
            GraphError: another block needs what it gives, or the graph could not be lowered then; it stays as it was.
        """
        graph, node, _ = self._at(node)
        edits.remove(graph, node)

    def replace(self, node: str, pattern: str) -> list[str]:
        """Put a pattern in the place of a block or a read: `g.replace("a2", "a(heads=4)")`. Returns the new nodes.

        A single block of the same kind has the name of the one it replaces. Errors are those of `insert`.
        """
        graph, node, prefix = self._at(node)
        return [prefix + new for new in edits.replace(graph, node, pattern)]

    def _at(self, node: str) -> tuple[Graph, str, str]:
        """The stream that has a node, its name there, and what goes before the names of that stream's nodes."""
        prefix = "encoder."
        encoder = self.encoder if str(node).startswith(prefix) and node not in self.nx else None
        return (self, node, "") if encoder is None else (encoder, node.removeprefix(prefix), prefix)
