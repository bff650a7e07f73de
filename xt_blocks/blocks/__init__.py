"""What the blocks of a graph compute."""
