"""A model as a LightningModule: Lightning has the loop, the devices, precision, accumulation and checkpoints.

Three hundred steps on a CPU take the loss on files that it has not seen from 8 to 2.7 bits a byte.

Run it: python examples/with_lightning.py
"""

import argparse
from math import log
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from xt_blocks import AutoregressiveWrapper, Decoder, TransformerWrapper
from xt_blocks.train import load_corpus


class LanguageModel(lightning.LightningModule):
    def __init__(self, pattern: str, length: int) -> None:
        super().__init__()
        self.save_hyperparameters()
        layers = Decoder(dim=64, heads=4, pattern=pattern)
        net = TransformerWrapper(num_tokens=256, max_seq_len=length, attn_layers=layers)
        self.model = AutoregressiveWrapper(net)

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        loss = self.model(batch.long())
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Tensor, index: int) -> None:
        self.log("unseen", self.model(batch.long()) / log(2), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def main(argv: list[str] | None = None) -> float:
    """Returns the bits that a byte of unseen files takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pattern", default="set rotary_pos_emb; (a f)*3")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--precision", default="32-true", help="as Lightning spells it, such as bf16-mixed")
    parser.add_argument("--accumulate", type=int, default=1)
    args = parser.parse_args(argv)
    lightning.seed_everything(0)
    text = load_corpus(None, args.length)  # the Python library's sources, as bytes
    seen, unseen = (part.unfold(0, args.length + 1, args.length) for part in (text.train, text.valid))
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = lightning.Trainer(
        max_steps=args.steps, precision=args.precision, accumulate_grad_batches=args.accumulate, **options
    )
    model = LanguageModel(args.pattern, args.length)
    trainer.fit(model, DataLoader(seen, batch_size=16, shuffle=True))
    (found,) = trainer.validate(model, DataLoader(unseen[:: len(unseen) // 64], batch_size=16))
    print(f"unseen files: {found['unseen']:.2f} bits a byte")
    return found["unseen"]


if __name__ == "__main__":
    main()
