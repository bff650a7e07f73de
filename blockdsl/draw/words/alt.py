"""A picture in sentences, for who cannot see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..parts import DrawnBlock, DrawnBranches, DrawnLabel, DrawnRepeat, DrawnSide, Part, Parts

MOST = 2000  # characters; who hears more than that asks for the text drawing


def alt_text(input: str, stages: Sequence[tuple[str, Parts]], output: str, say: Callable[[DrawnBlock], str]) -> str:
    """What enters, each stage with its title, if it has one, and what leaves; `say`: a block or a read in words."""

    def words(part: Part) -> str:
        if isinstance(part, DrawnRepeat):
            return f"{part.times:,} times ({chain(part.parts)})"
        if isinstance(part, DrawnSide):
            return f"beside the stream ({chain(part.columns[0])})"
        if isinstance(part, DrawnBranches):
            return "in parallel " + " and ".join(f"({chain(column) or 'nothing'})" for column in part.columns)
        return say(part)

    def chain(parts: Parts) -> str:
        said, length = [], 0
        for part in parts:
            if not isinstance(part, DrawnLabel) and (own := words(part)):
                said.append(own)
                length += len(own)
                if length > MOST:  # what follows is cut off
                    break
        return ", ".join(said)

    said = [input, *(f"{title}{': ' if title else ''}{chain(parts)}" for title, parts in stages), output]
    text = "".join(f"{sentence[:1].upper()}{sentence[1:]}. " for sentence in said if sentence).strip()
    return text if len(text) <= MOST else text[: MOST - 1] + "…"
