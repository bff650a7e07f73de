"""Training wrappers and the loops that generate, token by token, segment by segment, or all at once."""
