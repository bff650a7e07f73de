"""Memory of a process whose sequences are all of another length.

oneDNN keeps a kernel for each shape that it is given. The table says what a process holds after many lengths, with
oneDNN's linear layers, on any processor, and without them.

MKL too keeps buffers, for torch's attention, which on several threads takes a new one for some lengths: 20 MB of the
forward passes with oneDNN on two threads. Without oneDNN those of the linear layers serve. The environment variable
MKL_DISABLE_FAST_MM=1 leaves them out of both columns.

    python -m tests.benchmarks.lengths [--lengths 1000] [--step 1] [--threads 1 2] [--work forward train generate pack]
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from xt_blocks import AutoregressiveWrapper, Decoder, TransformerWrapper, pack
from xt_blocks.kernels import onednn

from .snippet import ROOT

VOCABULARY = 256


def forward(model: AutoregressiveWrapper, lengths: range) -> None:
    with torch.no_grad():
        for tokens in _texts(lengths):
            model.net(tokens)


def train(model: AutoregressiveWrapper, lengths: range) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for tokens in _texts(lengths):
        model(tokens).backward()
        optimizer.step()
        optimizer.zero_grad()


def generate(model: AutoregressiveWrapper, lengths: range) -> None:
    for length in lengths:
        model.generate(torch.zeros(1, length, dtype=torch.long), 1, cache_kv=False)


def packed(model: AutoregressiveWrapper, lengths: range) -> None:
    forward(pack(model), lengths)


WORK: dict[str, Callable[[AutoregressiveWrapper, range], None]] = {
    "forward": forward,
    "train": train,
    "generate": generate,
    "pack": packed,
}


def _texts(lengths: range) -> Iterator[Tensor]:
    return (torch.randint(0, VOCABULARY, (1, length)) for length in lengths)


def held() -> int:
    """Bytes that the process holds, without those that are free."""
    ctypes.CDLL(None).malloc_trim(0)
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


def measured(work: str, lengths: range, threads: int, by_onednn: bool) -> tuple[int, int]:
    """Bytes after one length and after all, of this process."""
    torch.set_num_threads(threads)
    onednn.BEATS_MKL = by_onednn
    torch.manual_seed(0)
    stack = Decoder(dim=512, depth=2, heads=8)
    net = TransformerWrapper(num_tokens=VOCABULARY, max_seq_len=lengths.stop, attn_layers=stack)
    model = AutoregressiveWrapper(net)
    copies = [own.detach().clone() for own in model.parameters()] if work == "pack" and not by_onednn else []
    with torch.backends.mkldnn.flags(enabled=by_onednn):  # type: ignore[no-untyped-call]
        WORK[work](model, lengths[-1:])
        start = held()
        WORK[work](model, lengths)
        end = held()
    del copies  # which are the memory of packed weights
    return start, end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, default=1000)
    parser.add_argument("--step", type=int, default=1, help="from one length to the next")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--work", nargs="+", choices=WORK, default=[*WORK])
    parser.add_argument("--one", nargs=3, metavar=("WORK", "THREADS", "ONEDNN"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        work, threads, by_onednn = given.one
        print(*measured(work, range(2, given.lengths + 2, given.step), int(threads), by_onednn == "1"))
        return
    print("| work | threads | oneDNN, MB | without, MB | ratio |", "| --- | --- | --- | --- | --- |", sep="\n")
    for work in given.work:
        for threads in given.threads:
            ends = []
            for by_onednn in ("1", "0"):
                command = [sys.executable, "-m", "tests.benchmarks.lengths"]
                command += [
                    "--lengths",
                    str(given.lengths),
                    "--step",
                    str(given.step),
                    "--one",
                    work,
                    str(threads),
                    by_onednn,
                ]
                run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
                ends.append(int(run.stdout.split()[-1]) / 1e6)
            print(f"| {work} | {threads} | {ends[0]:.0f} | {ends[1]:.0f} | {ends[0] / ends[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
