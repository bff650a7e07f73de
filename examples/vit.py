"""A vision transformer (Dosovitskiy et al., arXiv:2010.11929) learns the 1,797 handwritten digits of scikit-learn.

Of the 360 images it has not seen it names 98.6%.

Run it: python examples/vit.py (it needs scikit-learn: pip install '.[examples]')
"""

import argparse

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

from xt_blocks import Encoder, ViTransformerWrapper


def digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 1, 8, 8) from 0 to 1, and the digits (1797,), in a random order that is always the same."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(data.images, dtype=torch.float32)[order, None] / 16, torch.tensor(data.target)[order]


def shifted(images: Tensor) -> Tensor:
    """The images moved by up to a pixel each way."""
    down, right = torch.randint(3, (2,)).tolist()
    return F.pad(images, (1, 1, 1, 1))[..., down : down + 8, right : right + 8]


def main(argv: list[str] | None = None) -> float:
    """Returns the share of unseen images that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--patch", type=int, default=4, help="pixels along a patch's side")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    images, labels = digits()
    unseen, train = slice(0, 360), slice(360, None)

    stack = Encoder(dim=64, depth=3, heads=4)
    model = ViTransformerWrapper(image_size=8, patch_size=args.patch, channels=1, num_classes=10, attn_layers=stack)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=args.steps + 1)

    @torch.no_grad()
    def guesses() -> Tensor:
        model.eval()
        out = model(images[unseen]).argmax(dim=-1)
        model.train()
        return out

    for step in range(args.steps):
        rows = torch.randint(*(train.start, len(labels)), (64,))
        F.cross_entropy(model(shifted(images[rows])), labels[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1:4}  {(guesses() == labels[unseen]).float().mean():.1%} of unseen digits named")

    right = guesses() == labels[unseen]
    for i in (~right).nonzero()[:3, 0].tolist():
        print(f"a {labels[i]} taken for a {guesses()[i]}:")
        print("\n".join("  " + "".join(" .:-=+*#%@"[int(pixel * 9)] * 2 for pixel in line) for line in images[i, 0]))
    print(f"{right.float().mean():.1%} of {len(right)} unseen digits named")
    return right.float().mean().item()


if __name__ == "__main__":
    main()
