"""Files of weights: several with an index, PyTorch's, damaged ones, tensors that are missing or too many. No peer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import xt_blocks
from blockdsl.errors import UserError
from xt_blocks import from_hugging_face, to_hugging_face

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaModel"],
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 19,
}
Q = "layers.1.self_attn.q_proj.weight"


def model() -> Any:
    built = xt_blocks.lower(xt_blocks.interop.hugging_face.read(CONFIG).graphs()[""])
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter)
    return built


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    to_hugging_face(model(), tmp_path, config=CONFIG)
    return tmp_path


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def change(folder: Path, **changes: Any) -> None:
    """Other tensors by name, or none: they are taken away."""
    tensors = {**weights(folder), **changes}
    save_file({name: t for name, t in tensors.items() if t is not None}, folder / "model.safetensors")


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        from_hugging_face(folder)
    return str(error.value)


def same(one: Any, other: Any) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_names_are_theirs(folder: Path) -> None:
    assert weights(folder)[Q].shape == (16, 16)
    assert len(weights(folder)) == 2 + 2 * 9


def test_several_files(folder: Path, tmp_path: Path) -> None:
    before = from_hugging_face(folder)
    several = tmp_path / "several"
    to_hugging_face(before, several, max_shard_bytes=4000)
    assert len([*several.glob("*.safetensors")]) > 2
    assert same(before, from_hugging_face(several))
    gone = next(iter(sorted(several.glob("*.safetensors"))))
    gone.unlink()
    assert f"{gone.name} is missing" in refusal(several)


def test_an_index_names_files_beside_it_only(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"norm.weight": "../model.safetensors"}}))
    assert "names a file elsewhere" in refusal(folder)
    index.write_text("[")
    assert "is damaged" in refusal(folder)


@pytest.mark.parametrize("old", [False, True])
def test_files_of_pytorch(folder: Path, old: bool) -> None:
    before, file = from_hugging_face(folder), folder / "pytorch_model.bin"
    torch.save(weights(folder), file, _use_new_zipfile_serialization=not old)
    (folder / "model.safetensors").unlink()
    assert same(before, from_hugging_face(folder))
    torch.save({"norm.weight": print}, file)  # weights_only refuses code
    assert "is damaged, or no file of weights" in refusal(folder)


def test_several_files_of_pytorch(folder: Path) -> None:
    before, found = from_hugging_face(folder), weights(folder)
    names = [*found]
    where = {name: f"pytorch_model-{i % 2}.bin" for i, name in enumerate(names)}
    for file in {*where.values()}:
        torch.save({name: found[name] for name in names if where[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
    (folder / "model.safetensors").unlink()
    assert same(before, from_hugging_face(folder))


def test_damaged_and_missing_files(folder: Path) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert f"{file} is damaged" in refusal(folder)
    file.unlink()
    assert "has no weights" in refusal(folder)
    (folder / "config.json").write_text("{")
    assert "config.json is damaged" in refusal(folder)
    assert "there is no folder" in refusal(folder / "none")


def test_tensors_that_are_missing_or_too_many(folder: Path) -> None:
    change(folder, **{Q: None, "odd": torch.zeros(1)})
    assert refusal(folder).splitlines()[1:] == [f"  missing: model.{Q}", "  unexpected: odd"]


def test_tensors_of_another_shape(folder: Path) -> None:
    change(folder, **{Q: torch.zeros(8, 16)})
    assert f"{Q} is (8, 16), and the configuration says (16, 16)" in refusal(folder)


def test_buffers_of_older_releases_are_no_weights(folder: Path) -> None:
    change(folder, **{"layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(2)})
    from_hugging_face(folder)


def test_names_with_the_prefix_of_a_class_with_a_head(folder: Path) -> None:
    before = from_hugging_face(folder)
    save_file({f"model.{name}": t for name, t in weights(folder).items()}, folder / "model.safetensors")
    assert same(before, from_hugging_face(folder))


def test_norms_as_old_files_call_them(folder: Path) -> None:
    before = from_hugging_face(folder)
    old = {name.replace("norm.weight", "norm.gamma"): tensor for name, tensor in weights(folder).items()}
    assert "norm.gamma" in old
    save_file(old, folder / "model.safetensors")
    assert same(before, from_hugging_face(folder))


def test_types(folder: Path) -> None:
    half = {name: t.to(torch.bfloat16) for name, t in weights(folder).items()}
    save_file(half, folder / "model.safetensors")
    assert {p.dtype for p in from_hugging_face(folder).parameters()} == {torch.bfloat16}
    assert {p.dtype for p in from_hugging_face(folder, dtype=torch.float64).parameters()} == {torch.float64}
    change(folder, **{Q: torch.zeros(16, 16)})
    assert {p.dtype for p in from_hugging_face(folder).parameters()} == {torch.float32}  # as config.json says
    with pytest.raises(UserError, match=r"floating-point numbers, not torch\.int8"):
        from_hugging_face(folder, dtype=torch.int8)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    assert "of several types (torch.bfloat16, torch.float32): say which with dtype=" in refusal(folder)


def test_quantised_weights_are_refused(folder: Path) -> None:
    change(folder, **{Q: torch.zeros(16, 16, dtype=torch.int8)})
    assert f"{Q} is of whole numbers (torch.int8)" in refusal(folder)


def test_a_folder_of_ours_is_told(folder: Path, tmp_path: Path) -> None:
    model().save_pretrained(tmp_path / "own")
    assert "xt_blocks.from_pretrained reads a model of xt_blocks" in refusal(tmp_path / "own")


def test_a_model_of_ones_own_needs_a_configuration_that_says_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give config="):
        to_hugging_face(model(), tmp_path)
    with pytest.raises(UserError, match="says another model") as error:
        to_hugging_face(model(), tmp_path, config={**CONFIG, "num_key_value_heads": 4})
    assert "kv_heads" in str(error.value)
    assert not [*tmp_path.iterdir()]


def test_weights_that_no_graph_says_are_not_left_out(folder: Path, tmp_path: Path) -> None:
    to_hugging_face(xt_blocks.pack(from_hugging_face(folder)), tmp_path / "packed")
    assert same(from_hugging_face(tmp_path / "packed"), from_hugging_face(folder))
    adapted = from_hugging_face(folder)
    adapted.attn_layers.adapter = torch.nn.Linear(2, 2)
    with pytest.raises(
        UserError, match=r"attn_layers\.adapter\.bias, attn_layers\.adapter\.weight; unpack it, or merge"
    ):
        to_hugging_face(adapted, tmp_path / "adapted")


def test_what_was_read_is_kept_by_save_pretrained(folder: Path, tmp_path: Path) -> None:
    from_hugging_face(folder).save_pretrained(tmp_path / "own")
    again = xt_blocks.from_pretrained(tmp_path / "own")
    to_hugging_face(again, tmp_path / "back")
    assert weights(tmp_path / "back").keys() == weights(folder).keys()
    assert all(torch.equal(t, weights(folder)[name]) for name, t in weights(tmp_path / "back").items())


def test_the_ends_of_a_text_are_kept(folder: Path, tmp_path: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7, 9]}))
    from_hugging_face(folder).save_pretrained(tmp_path / "own")
    to_hugging_face(xt_blocks.from_pretrained(tmp_path / "own"), tmp_path / "back")
    assert json.loads((tmp_path / "back" / "config.json").read_text())["eos_token_id"] == [2, 7, 9]
