"""MaskGIT (Chang et al., arXiv:2202.04200) draws digits: all pixels masked, then filled in over twelve steps.

The images are scikit-learn's handwritten digits in four shades of grey, 64 tokens each. How near a drawing comes to the
nearest real digit says how much it is like one: of 64 pixels 10.5 differ. Of real digits that the model has not seen
11.7 differ, and where each pixel is drawn by itself, as often dark as in the real ones, 19.1 do.

Run it: python examples/maskgit.py (it needs scikit-learn: pip install '.[examples]')
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from xt_blocks import Encoder, NonAutoregressiveWrapper, TransformerWrapper

SHADES = " ░▒█"


def drawn(rows: Tensor) -> str:
    """`rows: (images, 64)` side by side."""
    lines = rows.view(-1, 8, 8).transpose(0, 1).tolist()
    return "\n".join("  ".join("".join(SHADES[shade] * 2 for shade in row) for row in line) for line in lines)


def nearest(rows: Tensor, real: Tensor) -> float:
    """The pixels that differ from the nearest of the real images, the mean over `rows: (images, 64)`."""
    return (rows[:, None] != real).sum(dim=-1).min(dim=1).values.float().mean().item()


def main(argv: list[str] | None = None) -> tuple[float, float]:
    """Returns the pixels that differ from the nearest real digit, of drawings and of pixels drawn by themselves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--draw", type=int, default=8, help="digits to show")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    images = torch.tensor(load_digits().images).flatten(1)
    images = (images / 16 * 3).round().long()[torch.randperm(len(images))]
    unseen, train = images[:300], images[300:]

    net = TransformerWrapper(
        num_tokens=len(SHADES) + 1, max_seq_len=64, attn_layers=Encoder(dim=64, depth=4, heads=4, ff_glu=True)
    )
    model = NonAutoregressiveWrapper(net, mask_id=len(SHADES), steps=12, schedule="cosine")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=args.steps + 1)
    for step in range(args.steps):
        loss = model(train[torch.randint(len(train), (32,))]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1:4}  loss {loss.item():.3f}")

    made = model.generate(batch_size=128, filter_thres=0)
    alone = torch.stack([column[torch.randint(len(train), (128,))] for column in train.T], dim=1)
    print(drawn(made[: args.draw]))
    near = {"drawings": made, "unseen digits": unseen, "pixels by themselves": alone}
    distance = {name: nearest(rows, train) for name, rows in near.items()}
    print("pixels that differ from the nearest digit:", ", ".join(f"{name} {d:.1f}" for name, d in distance.items()))
    return distance["drawings"], distance["pixels by themselves"]


if __name__ == "__main__":
    main()
