"""Code as people write it around x-transformers, run through `xt_blocks.x_transformers`."""
