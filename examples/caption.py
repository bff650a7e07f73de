"""Images to captions: a decoder spells what a vision transformer sees, "three seven" for a 3 beside a 7.

The images are pairs of scikit-learn's handwritten digits. The decoder attends to the embeddings of the image's patches.
Of 500 pairs of digits it has not seen it spells 97.2% without a mistake.

Run it: python examples/caption.py (it needs scikit-learn: pip install '.[examples]')
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from xt_blocks import AutoregressiveWrapper, Decoder, Encoder, TransformerWrapper, ViTransformerWrapper

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SIGNS = "^$ abcdefghijklmnopqrstuvwxyz"  # the start, the end and what follows it, a space, letters
LONGEST = 11  # "three seven"


def digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 1, 8, 8) from 0 to 1, and the digits (1797,), in a random order that is always the same."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(data.images, dtype=torch.float32)[order, None] / 16, torch.tensor(data.target)[order]


def pairs_of(images: Tensor, labels: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Images (rows, 1, 8, 16) of two digits, and their captions (rows, 13): a start, the text, an end or more."""
    left, right = torch.randint(len(labels), (2, rows))
    texts = [f"{NAMES[labels[a]]} {NAMES[labels[b]]}" for a, b in zip(left, right, strict=True)]
    tokens = [[SIGNS.index(sign) for sign in f"^{text}$".ljust(LONGEST + 2, "$")] for text in texts]
    return torch.cat((images[left], images[right]), dim=-1), torch.tensor(tokens)


def main(argv: list[str] | None = None) -> float:
    """Returns the share of unseen pairs whose caption is right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=800)
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    images, labels = digits()

    vit = ViTransformerWrapper(
        image_size=(8, 16), patch_size=4, channels=1, attn_layers=Encoder(dim=64, depth=2, heads=4)
    )
    writer = AutoregressiveWrapper(
        TransformerWrapper(
            num_tokens=len(SIGNS),
            max_seq_len=LONGEST + 1,
            attn_layers=Decoder(dim=64, depth=2, heads=4, cross_attend=True),
        )
    )
    parameters = [*nn.ModuleList((vit, writer)).parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=args.steps + 1)
    for step in range(args.steps):
        image, caption = pairs_of(images[360:], labels[360:], 64)
        loss = writer(caption, context=vit(image))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1:4}  loss {loss.item():.4f}")

    vit.eval()
    image, caption = pairs_of(images[:360], labels[:360], 500)
    with torch.no_grad():
        context = vit(image)
    made = writer.generate(caption[:, :1], LONGEST + 1, temperature=0, context=context)
    for row in range(3):
        print("\n".join("  " + "".join(" .:-=+*#%@"[int(pixel * 9)] * 2 for pixel in line) for line in image[row, 0]))
        print("→", "".join(SIGNS[sign] for sign in made[row]).rstrip("$"))
    right = (made == caption[:, 1:]).all(dim=1).float().mean().item()
    print(f"{right:.1%} of {len(image)} unseen pairs spelled without a mistake")
    return right


if __name__ == "__main__":
    main()
