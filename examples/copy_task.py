"""An encoder-decoder learns to copy sequences of different lengths, and where they end.

After training it generates the copies of 500 fresh sequences, token by token: 100% of them are
right to the last token.

Run it: python examples/copy_task.py
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

from xt_blocks import XTransformer

PADDING, START, END, SYMBOLS = 0, 1, 2, 16  # the symbols are the tokens from 3 on


def batch_of(rows: int, longest: int) -> tuple[Tensor, Tensor]:
    """Sequences (rows, longest) of 1 to `longest` symbols with padding behind them, and their mask."""
    lengths = torch.randint(1, longest + 1, (rows, 1))
    mask = torch.arange(longest) < lengths
    return torch.randint(3, 3 + SYMBOLS, (rows, longest)).where(mask, PADDING), mask


def target_of(src: Tensor, mask: Tensor) -> Tensor:
    """(rows, longest + 2): the start sign, the symbols, the end sign, padding."""
    edge = torch.zeros_like(src[:, :1])
    out = torch.cat((edge + START, src, edge), dim=1)
    return out.scatter(1, mask.sum(dim=1, keepdim=True) + 1, END)


def main(argv: list[str] | None = None) -> float:
    """Returns the share of fresh sequences that are copied without a mistake."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--longest", type=int, default=16)
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    model = XTransformer(
        dim=64,
        tie_token_emb=True,
        **dict.fromkeys(("enc_num_tokens", "dec_num_tokens"), 3 + SYMBOLS),
        **dict.fromkeys(("enc_max_seq_len", "dec_max_seq_len"), args.longest + 2),
        **dict.fromkeys(("enc_depth", "dec_depth"), 2),
        **dict.fromkeys(("enc_heads", "dec_heads"), 4),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=args.steps + 1)
    for step in range(args.steps):
        src, mask = batch_of(64, args.longest)
        tgt = target_of(src, mask)
        loss = model(src, tgt, mask=mask, tgt_mask=tgt != PADDING)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1:4}  loss {loss.item():.4f}")

    src, mask = batch_of(500, args.longest)
    start = torch.full((len(src), 1), START)
    made = model.generate(src, start, args.longest + 1, mask=mask, temperature=0, eos_token=END)
    made = F.pad(made, (0, args.longest + 1 - made.shape[1]), value=PADDING)  # it ended when every row had
    right = (made == target_of(src, mask)[:, 1:]).all(dim=1)
    for row in range(3):
        print(f"{src[row][mask[row]].tolist()}\n  → {made[row][made[row] > END].tolist()}")
    print(f"{right.float().mean():.1%} of {len(src)} fresh sequences copied to the last token")
    return right.float().mean().item()


if __name__ == "__main__":
    main()
