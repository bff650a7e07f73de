"""`python -m blockdsl` is the `blockdsl` command, which stands above this package and is found by name."""

import sys
from pkgutil import resolve_name

if __name__ == "__main__":
    sys.exit(resolve_name("xt_blocks.cli:main")())
