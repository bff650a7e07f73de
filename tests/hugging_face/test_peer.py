"""Ways in and out between a model of `transformers` and ours, whatever its family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, LlamaConfig, LlamaForSequenceClassification, LlamaModel

from blockdsl.errors import UserError
from xt_blocks import from_hugging_face, to_hugging_face

from .agreement import randomised
from .test_llama import SMALL

TOKENS = torch.arange(7)[None]


def theirs() -> LlamaModel:
    model: LlamaModel = randomised(LlamaModel(LlamaConfig(**SMALL, num_key_value_heads=2))).eval()
    return model


def test_a_model_at_hand_and_its_folder_are_the_same(tmp_path: Path) -> None:
    model = theirs()
    model.save_pretrained(tmp_path)
    at_hand, read = from_hugging_face(model), from_hugging_face(tmp_path)
    assert at_hand.graph == read.graph
    assert torch.equal(at_hand(TOKENS), read(TOKENS))
    before = at_hand(TOKENS)
    with torch.no_grad():
        model.norm.weight.zero_()  # ours has weights of its own
    assert torch.equal(at_hand(TOKENS), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_transformers_loads_what_is_written(tmp_path: Path, dtype: torch.dtype) -> None:
    model = theirs().to(dtype)
    to_hugging_face(from_hugging_face(model), tmp_path, max_shard_bytes=5000)
    again = AutoModel.from_pretrained(tmp_path)
    assert type(again) is LlamaModel
    before, after = model.state_dict(), again.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == set()
    assert {p.dtype for p in again.parameters()} == {dtype}


def test_files_of_several_shards_as_transformers_writes_them(tmp_path: Path) -> None:
    model = theirs()
    model.save_pretrained(tmp_path, max_shard_size="5KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 2
    assert torch.equal(from_hugging_face(tmp_path)(TOKENS), from_hugging_face(model)(TOKENS))


def test_a_head_that_there_is_not_is_left_out_when_asked(tmp_path: Path) -> None:
    model = randomised(LlamaForSequenceClassification(LlamaConfig(**SMALL))).eval()
    with pytest.raises(UserError, match="the head of LlamaForSequenceClassification cannot be built"):
        from_hugging_face(model)
    with pytest.warns(UserWarning, match=r"of another head: score\.weight"):
        ours = from_hugging_face(model, architecture="LlamaModel")
    assert torch.allclose(ours(TOKENS), model.model(TOKENS).last_hidden_state, atol=1e-5)
