"""Lightning and accelerate train a model as a plain loop does, and Lightning's example runs."""

from __future__ import annotations

import copy
import runpy
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.utils.data import DataLoader

from xt_blocks import AutoregressiveWrapper, Decoder, TransformerWrapper

EXAMPLE = Path(__file__).parents[3] / "examples" / "with_lightning.py"
ROWS = torch.randint(0, 17, (12, 10), generator=torch.Generator().manual_seed(1))


def made() -> AutoregressiveWrapper:
    torch.manual_seed(0)
    layers = Decoder(dim=12, heads=2, pattern="a>>1 f(glu)@x e(experts=2, top=1) f(glu)@x")
    return AutoregressiveWrapper(TransformerWrapper(num_tokens=17, max_seq_len=9, attn_layers=layers))


def by_hand(model: AutoregressiveWrapper) -> dict[str, Tensor]:
    """The weights after an epoch of three steps, of two batches each."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for i in range(3):
        for rows in ROWS[4 * i : 4 * i + 4].split(2):
            (model(rows) / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
    return dict(model.state_dict())


class Plain(lightning.LightningModule):
    def __init__(self, model: AutoregressiveWrapper) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        loss: Tensor = self.model(batch)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_trains_as_a_plain_loop_does(tmp_path: Path) -> None:
    model = made()
    expected = by_hand(copy.deepcopy(model))
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(
        max_epochs=1, accumulate_grad_batches=2, accelerator="cpu", default_root_dir=tmp_path, **quiet
    )
    trainer.fit(Plain(model), DataLoader(ROWS, batch_size=2))
    torch.testing.assert_close(dict(model.state_dict()), expected)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = Plain.load_from_checkpoint(tmp_path / "x.ckpt", model=made())
    torch.testing.assert_close(dict(again.model.state_dict()), expected)


def test_accelerate_trains_as_a_plain_loop_does() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    model = made()
    expected = by_hand(copy.deepcopy(model))
    accelerator = Accelerator(gradient_accumulation_steps=2, cpu=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(ROWS, batch_size=2))
    for rows in loader:
        with accelerator.accumulate(model):
            accelerator.backward(model(rows))
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(dict(accelerator.unwrap_model(model).state_dict()), expected)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_example_learns_more_than_which_bytes_are_common(precision: str) -> None:
    small = ["--steps", "40", "--length", "32", "--pattern", "set rotary_pos_emb; a>>1 f"]
    bits = runpy.run_path(str(EXAMPLE))["main"]([*small, "--precision", precision])
    assert bits < 4.6  # the entropy of single bytes is 4.7
