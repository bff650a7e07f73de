"""A pass over a graph: its plan, its state, what is recorded of it."""
