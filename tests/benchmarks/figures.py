"""Start-up and building times: fresh processes, medians, and x-transformers beside them where it is installed.

Run it: python tests/benchmarks/figures.py [--runs 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

GPT3 = "dim=12288, heads=96, attn_dim_head=128"

# What is timed: code before the clock starts, code under it.
CASES = {
    "bare interpreter, import of nothing": ("", ""),
    "import blockdsl": ("", "import blockdsl"),
    "import xt_blocks, torch loaded": ("import torch", "import xt_blocks"),
    "import x_transformers, torch loaded": ("import torch", "import x_transformers"),
    "parse (a f)*1000, first in the process": ("import blockdsl", "blockdsl.parse('(a f)*1000')"),
    "compile (a f)*1000": (
        "import blockdsl; blockdsl.compile('a', dim=8)",
        "blockdsl.compile('(a f)*1000', dim=512, heads=8)",
    ),
    "compile (a f)*10000, ten times the blocks": (
        "import blockdsl; blockdsl.compile('a', dim=8)",
        "blockdsl.compile(blockdsl.parse('(a f)*10000', max_blocks=20_000), dim=512, heads=8)",
    ),
    "compile and lower GPT-3 on the meta device": (
        "import blockdsl, torch, xt_blocks",
        f"""
with torch.device('meta'):
    g = blockdsl.compile('(a f)*96', {GPT3}, causal=True, num_tokens=50257, max_seq_len=2048)
    xt_blocks.lower(g)
""",
    ),
    "the same with x_transformers": (
        "import torch; from x_transformers import TransformerWrapper, Decoder",
        """
with torch.device('meta'):
    stack = Decoder(dim=12288, depth=96, heads=96, attn_dim_head=128)
    TransformerWrapper(num_tokens=50257, max_seq_len=2048, attn_layers=stack)
""",
    ),
    "count GPT-3's parameters": (
        f"import blockdsl; g = blockdsl.compile('(a f)*96', {GPT3}, num_tokens=50257, max_seq_len=2048)",
        "assert g.parameters() == 175_217_149_009",
    ),
}

COMMANDS = {
    "python -c pass, whole process": ["-c", "pass"],
    "blockdsl check, whole process": [
        "-c",
        "import sys; from blockdsl.cli import main; sys.exit(main(['check', 'f a f | a*6 f*6 | sandwich(6)']))",
    ],
}


def inside(before: str, timed: str) -> float:
    """Seconds of `timed` in a fresh process."""
    script = f"import time\n{before}\nstart = time.perf_counter()\n{timed}\nprint(time.perf_counter() - start)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return float(run.stdout.split()[-1]) if run.returncode == 0 else float("nan")


def outside(arguments: list[str]) -> float:
    """Seconds of a whole process."""
    script = f"import subprocess, sys, time; start = time.perf_counter(); subprocess.run([sys.executable, *{arguments!r}], stdout=subprocess.DEVNULL, check=True); print(time.perf_counter() - start)"
    return float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = range(parser.parse_args().runs)
    times = {name: [inside(*case) for _ in runs] for name, case in CASES.items()}
    times |= {name: [outside(command) for _ in runs] for name, command in COMMANDS.items()}
    for name, seconds in times.items():
        if seconds[0] == seconds[0]:
            print(
                f"{name:46} median {statistics.median(seconds):.3f} s  (from {min(seconds):.3f} to {max(seconds):.3f})"
            )
        else:
            print(f"{name:46} not installed")


if __name__ == "__main__":
    main()
