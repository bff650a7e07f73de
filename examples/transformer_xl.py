"""Transformer-XL (Dai et al., arXiv:1901.02860): segments of a long text remember those before.

Segments are short, 32 bytes, so that their first bytes have next to no text before them. With memories of 128 bytes
the loss of unseen files falls at every place of a segment, and at its first bytes by far the most: at the
first one from 3.65 to 2.88 bits. The model is trained on both: the first segment of each piece of text has no memories.

Run it: python examples/transformer_xl.py
"""

import argparse
import math
import sysconfig
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from xt_blocks import Decoder, TransformerWrapper, XLAutoregressiveWrapper

SEGMENT, PARTS = 32, [(0, 1), (1, 4), (4, 8), (8, 16), (16, 32)]


def text_of(paths: list[Path]) -> Tensor:
    """(bytes,)"""
    return torch.frombuffer(bytearray(b"".join(path.read_bytes() for path in paths)), dtype=torch.uint8)


def batch_of(text: Tensor, rows: int, length: int) -> Tensor:
    """`text: (bytes,)` → (rows, length) pieces from random places."""
    starts = torch.randint(len(text) - length, (rows, 1))
    return text[starts + torch.arange(length)].long()


@torch.no_grad()
def bits_by_place(net: TransformerWrapper, x: Tensor, remember: bool) -> Tensor:
    """`x: (batch, seq + 1)` → (segment,) bits at each place of a segment, the mean over all segments but the first."""
    mems, losses = None, []
    for start in range(0, x.shape[1] - 1, SEGMENT):
        seen, target = x[:, start : start + SEGMENT], x[:, start + 1 : start + SEGMENT + 1]
        logits, new = net(seen, mems=mems, return_mems=True)
        mems = new if remember else None
        losses.append(F.cross_entropy(logits.transpose(1, 2), target, reduction="none").mean(dim=0))
    return torch.stack(losses[1:]).mean(dim=0) / math.log(2)


def main(argv: list[str] | None = None) -> tuple[float, float]:
    """Returns the bits of a segment's first four bytes without memories and with them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--memory", type=int, default=128, help="bytes that are remembered")
    parser.add_argument("--dim", type=int, default=128)
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    train, unseen = text_of([p for i, p in enumerate(files) if i % 10]), text_of(files[::10])

    stack = Decoder(dim=args.dim, depth=3, heads=4, rel_pos_bias=True)
    net = TransformerWrapper(num_tokens=256, max_seq_len=SEGMENT, max_mem_len=args.memory, attn_layers=stack)
    model = XLAutoregressiveWrapper(net)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=args.steps + 1)
    for step in range(args.steps):
        loss = model(batch_of(train, 16, 5 * SEGMENT + 1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step:4}  {loss / math.log(2):.2f} bits a byte")

    net.eval()
    held_out = batch_of(unseen, 64, 9 * SEGMENT + 1)
    without, with_mems = (bits_by_place(net, held_out, remember) for remember in (False, True))
    print("bits a byte   without   with memories")
    for first, last in PARTS:
        print(f"byte {first + 1:2} to {last:2} {without[first:last].mean():8.2f} {with_mems[first:last].mean():8.2f}")
    return without[:4].mean().item(), with_mems[:4].mean().item()


if __name__ == "__main__":
    main()
