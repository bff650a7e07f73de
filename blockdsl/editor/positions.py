"""Places as the Language Server Protocol has them, lines and UTF-16 units, and as offsets of a Python string.

Lines end at a line feed, a carriage return or both, and nowhere else: U+2028 and a form feed are characters of a line.
"""

from __future__ import annotations

import re
from bisect import bisect_right

_ENCODINGS = {"utf-8": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}
_BYTES = {"utf-8": 1, "utf-16": 2, "utf-32": 4}


class Lines:
    """The lines of a text; `units` is what characters of a line are counted in: utf-8, utf-16 or utf-32."""

    def __init__(self, text: str, units: str = "utf-16") -> None:
        self.text, self.units = text, units
        self.starts = [0, *(found.end() for found in re.finditer(r"\r\n|\r|\n", text))]

    def position(self, offset: int) -> tuple[int, int]:
        """The line, from 0, and the units before the offset in it."""
        line = bisect_right(self.starts, offset) - 1
        return line, self.width(self.starts[line], offset)

    def offset(self, line: int, units: int) -> int:
        """The offset of a position; one past the end of a line or the text is that end; in a character, its start."""
        if line < 0 or units < 0:
            return 0 if line < 0 else self.starts[min(line, len(self.starts) - 1)]
        if line >= len(self.starts):
            return len(self.text)
        start = self.starts[line]
        end = self.starts[line + 1] if line + 1 < len(self.starts) else len(self.text)
        content = self.text[start:end].rstrip("\r\n")
        if content.isascii():
            return start + min(units, len(content))
        for at in range(start, start + len(content)):
            units -= self.width(at, at + 1)
            if units < 0:
                return at
        return start + len(content)

    def width(self, start: int, end: int) -> int:
        """The units of what stands between two offsets."""
        part = self.text[start:end]
        if part.isascii():
            return len(part)
        return len(part.encode(_ENCODINGS[self.units], "surrogatepass")) // _BYTES[self.units]
