"""`python -m tests.editor` writes the TextMate grammar."""

from .textmate import FILE, text

FILE.write_text(text(), encoding="utf-8")
