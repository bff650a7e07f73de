"""Parts as a pattern writes them: in one line, each repeat once with its count."""

from __future__ import annotations

from ..parts import DrawnBlock, DrawnBranches, DrawnLabel, DrawnRepeat, DrawnSide, DrawnSkip, DrawnSum, Parts
from .captions import Captions


def as_written(captions: Captions, parts: Parts, times: str = "×") -> str:
    """`(a f) ×6 c`; a way beside the stream is `[f]`. A lone split has no parentheses of its own.

    Args:
        times: what stands before a count.
    """
    texts = []
    for part in parts:
        if isinstance(part, DrawnRepeat):
            inside = as_written(captions, part.parts, times)
            texts.append(f"{inside if _bare(part.parts) else f'({inside})'} {times}{part.times}")
        elif isinstance(part, DrawnBlock):
            texts.append(name(captions, part))
        elif isinstance(part, DrawnSide):
            texts.append(f"[{as_written(captions, part.columns[0], times)}]")
        else:
            text = _split(captions, part, times)
            texts.append(text if len(parts) == 1 else f"({text})")
    return " ".join(texts)


def name(captions: Captions, part: DrawnBlock) -> str:
    """A block, a read, a label or a skip."""
    if isinstance(part, DrawnLabel):
        return f"^{part.name or part.node}"
    if isinstance(part, DrawnSkip):
        called = captions.names.called
        added = (f"<{called(part.node, 'stream', [source])}" for source in captions.added[part.node])
        return " ".join([*(["sum"] if isinstance(part, DrawnSum) else []), *added])
    return " ".join([captions.name(part.node), *(f"^{label}" for label in captions.own(part.node))])


def _split(captions: Captions, split: DrawnBranches, times: str) -> str:
    texts = []
    for column in split.columns:
        inside = as_written(captions, column, times)
        bare = _bare(column) or (len(column) == 1 and isinstance(column[0], DrawnRepeat))
        texts.append(inside if bare else f"({inside})")
    return " & ".join(texts)


def _bare(parts: Parts) -> bool:
    """Whether they are one block or read, which needs no parentheses."""
    return len(parts) == 1 and isinstance(parts[0], DrawnBlock)
