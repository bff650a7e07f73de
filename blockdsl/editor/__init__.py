"""Writing patterns: what an editor asks of the language, and the page to write in."""
