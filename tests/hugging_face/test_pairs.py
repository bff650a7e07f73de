"""Encoder-decoders that were read: packed, saved as ours and written back, in another precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import xt_blocks

from . import test_bart, test_t5, test_whisper
from .agreement import randomised

CASES = {"t5": (test_t5, "1.1"), "bart": (test_bart, "plain"), "whisper": (test_whisper, "plain")}


@pytest.mark.parametrize("name", CASES)
def test_what_was_read_goes_on_as_a_model_of_ours(name: str, tmp_path: Path) -> None:
    module, case = CASES[name]
    theirs = randomised(module.peer(case)).eval()  # type: ignore[attr-defined]
    ours = xt_blocks.from_hugging_face(theirs)
    source = torch.randn(2, 22, 5) if name == "whisper" else torch.randint(3, 37, (2, 9))
    expected = ours.generate(source, seq_len=12, temperature=0.0)
    xt_blocks.pack(ours)
    assert torch.equal(ours.generate(source, seq_len=12, temperature=0.0), expected)
    xt_blocks.unpack(ours)
    ours.save_pretrained(tmp_path / "ours")
    again = xt_blocks.XTransformer.from_pretrained(tmp_path / "ours")
    assert torch.equal(again.generate(source, seq_len=12, temperature=0.0), expected)
    assert sum(p.numel() for p in again.parameters()) == theirs.num_parameters()
    xt_blocks.to_hugging_face(again, tmp_path / "theirs")
    back = type(theirs).from_pretrained(tmp_path / "theirs").state_dict()
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.state_dict().items())
    low = xt_blocks.from_hugging_face(tmp_path / "theirs", dtype=torch.bfloat16)
    assert {p.dtype for p in low.parameters()} == {torch.bfloat16}
    assert low.generate(source, seq_len=3, temperature=0.0).shape == (2, 3)
