"""Images and texts compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from blockdsl import UserError
from xt_blocks import Decoder, DualEncoder, Encoder, TransformerWrapper, ViTransformerWrapper


def image(**options: Any) -> ViTransformerWrapper:
    layers = Encoder(dim=12, depth=1, heads=2)
    return ViTransformerWrapper(image_size=8, patch_size=4, attn_layers=layers, **({"dim_out": 5} | options))


def text(**options: Any) -> TransformerWrapper:
    layers, own = Decoder(dim=8, depth=1, heads=2), {"pool": "end", "logits_dim": 5} | options
    return TransformerWrapper(num_tokens=11, max_seq_len=7, attn_layers=layers, **own)


@pytest.mark.parametrize("bias", [None, 0.25])
def test_logits_are_scaled_cosines(bias: float | None) -> None:
    model = DualEncoder(image(), text(), logit_scale=1.5, logit_bias=bias).eval()
    img, tokens = torch.randn(2, 3, 8, 8), torch.randint(0, 11, (3, 6))
    mask = torch.arange(6) < torch.tensor([[6], [4], [3]])
    images, texts = model.image(img), model.text(tokens, mask=mask)
    for i in range(2):
        for j in range(3):
            cosine = images[i] @ texts[j] / (images[i].square().sum() * texts[j].square().sum()).sqrt()
            wanted = cosine * torch.tensor(1.5).exp() + (bias or 0)
            torch.testing.assert_close(model(img, tokens, mask)[i, j], wanted)
    assert model(torch.randn(4, 3, 12, 4), tokens, interpolate_pos=True).shape == (4, 3)


def test_every_parameter_trains() -> None:
    model = DualEncoder(image(class_token=True), text(), logit_bias=-1)
    logits = model(torch.randn(2, 3, 8, 8), torch.randint(0, 11, (2, 6)))
    torch.nn.functional.cross_entropy(logits, torch.arange(2)).backward()
    dead = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert dead == set()


def test_it_is_written_and_read(tmp_path: Path) -> None:
    model = DualEncoder(image(pool="first", class_token=True), text(), logit_bias=0.5).eval()
    model.save_pretrained(tmp_path)
    again = DualEncoder.from_pretrained(tmp_path)
    img, tokens = torch.randn(2, 3, 8, 8), torch.randint(0, 11, (3, 6))
    assert torch.equal(again(img, tokens), model(img, tokens))
    assert again.graphs == model.graphs
    assert {path.name for path in tmp_path.iterdir()} >= {"image.json", "text.json"}


def test_encoders_that_do_not_fit() -> None:
    with pytest.raises(TypeError, match="image must be a ViTransformerWrapper, not TransformerWrapper"):
        DualEncoder(text(), text())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="text must be a TransformerWrapper, not ViTransformerWrapper"):
        DualEncoder(image(), image())  # type: ignore[arg-type]
    with pytest.raises(UserError, match="the image encoder gives no vector of an image"):
        DualEncoder(image(dim_out=None), text())
    with pytest.raises(UserError, match="the text encoder gives no vector of a text"):
        DualEncoder(image(), text(pool=None))
    with pytest.raises(UserError, match="the vector of an image has 24 features, and that of a text 5"):
        DualEncoder(image(dim_out=None, pool="first_mean"), text())
