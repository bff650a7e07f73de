"""Recurrences over the tokens, in chunks: matrix products within a chunk, a state from each chunk to the next."""
