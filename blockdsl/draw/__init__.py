"""Drawings of a block graph. Each reads the graph and nothing else."""
