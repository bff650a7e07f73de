"""Text far past max_seq_len: time a token, bytes of the cache and of the process as the text grows.

A stack whose blocks keep windows or states of constant size reads each token once, into a cache that does not grow.

Run: python -m tests.benchmarks.rolling [--tokens 100000] [--pattern "..."] [--threads 1]
"""

from __future__ import annotations

import argparse
import time

import torch

import xt_blocks
from xt_blocks.generation.prompts import read_prompts
from xt_blocks.generation.steps import RollingDecoding, decoding_of

from .memory import high_water, reset

PATTERN = "(m f)*3 a(max_attend_past=128) f"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--pattern", default=PATTERN)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    stack = xt_blocks.Decoder(given.dim, heads=4, pattern=given.pattern, rotary_pos_emb="a" in given.pattern)
    net = xt_blocks.TransformerWrapper(num_tokens=256, max_seq_len=512, use_abs_pos_emb=False, attn_layers=stack).eval()
    decoding = decoding_of(net, read_prompts(torch.zeros(1, 1, dtype=torch.int64)), given.tokens, True, False, {})
    assert isinstance(decoding, RollingDecoding), "the stack attends to all earlier tokens"
    assert decoding.cache is not None
    print(f"{given.pattern}, dim {given.dim}, max_seq_len {net.max_seq_len}")
    print(f"{'tokens':>9} {'ms a token':>11} {'cache bytes':>12} {'places held':>12} {'process MiB':>12}")
    reset("cpu")
    marks = {given.tokens // 10 * tenth for tenth in range(1, 11)} | {1000}
    start, since = time.perf_counter(), 0
    with torch.inference_mode():
        for token in range(1, given.tokens + 1):
            decoding.append(decoding.next_output().argmax(dim=-1))
            if token in marks:
                spent = (time.perf_counter() - start) / (token - since) * 1000
                held, places = decoding.cache.bytes(), decoding.cache.length
                print(f"{token:9,} {spent:11.2f} {held:12,} {places:12,} {high_water('cpu') / 2**20:12.1f}", flush=True)
                reset("cpu")  # the next mark is of the steps from here on
                start, since = time.perf_counter(), token


if __name__ == "__main__":
    main()
