"""What a configuration says, and what is refused in it: no torch, no `transformers`."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from blockdsl.errors import UserError
from blockdsl.hugging_face import families, read
from blockdsl.hugging_face.config import Config

ROOT = Path(__file__).parents[2]
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 19,
}


def refusal(**changes: object) -> str:
    with pytest.raises(UserError) as error:
        read({**LLAMA, **changes})
    return str(error.value)


def test_a_text_of_all_that_is_said() -> None:
    text = read(LLAMA, "LlamaModel").texts[""]
    assert text.startswith("set dim=16, heads=4, attn_dim_head=4, ")
    assert text.endswith("; (a f)*2")


def test_model_types_that_are_not_known() -> None:
    assert "model_type='lama' is not known here; the nearest that is known is 'llama'" in refusal(model_type="lama")
    assert "model_type='zamba': its Mamba-1 has heads" in refusal(model_type="zamba")
    assert "has no model_type" in refusal(model_type=None)


def test_classes_that_have_another_head() -> None:
    assert "the head of LlamaForTokenClassification cannot be built" in refusal(
        architectures=["LlamaForTokenClassification"]
    )


def test_keys() -> None:
    assert "num_attention_head=4; did you mean 'num_attention_heads'?" in refusal(num_attention_head=4)
    assert "hidden_size must be a whole number of at least 1, not '16'" in refusal(hidden_size="16")
    assert "the configuration has no hidden_size" in refusal(hidden_size=None)


def test_keys_of_older_releases_that_say_nothing() -> None:
    plain = {"is_decoder": False, "pruned_heads": {}, "attention_dropout": 0.1, "torch_dtype": "float16"}
    assert read({**LLAMA, **plain}).texts == read(LLAMA).texts
    assert "is_decoder=True" in refusal(is_decoder=True)


def test_the_page_names_every_model_type() -> None:
    page = (ROOT / "docs" / "hugging-face.md").read_text(encoding="utf-8")
    listed = page.partition("The values of `model_type`")[2].split("```")[1].split()
    missing = [name for name in families() if name not in listed]
    assert missing == [], "python -m tests.hugging_face writes it anew"


def test_families_are_found_in_a_zip(tmp_path: Path) -> None:
    file = tmp_path / "packages.zip"
    with zipfile.ZipFile(file, "w") as packed:
        for path in (*(ROOT / "blockdsl").rglob("*.py"), *(ROOT / "grammar").iterdir()):
            name = path.relative_to(ROOT).as_posix()
            packed.write(path, name if name.startswith("blockdsl") else f"blockdsl/{name}")
    script = "import blockdsl; assert '.zip' in blockdsl.__file__; print(*blockdsl.hugging_face.families())"
    command = [sys.executable, "-c", f"import sys; sys.path[:] = [{str(file)!r}, *sys.path[1:]]; {script}"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert {"llama", "gpt2"} <= {*ran.stdout.split()}


def test_a_key_of_a_nested_configuration_says_where_it_is() -> None:
    config = Config({"inner": {"odd": 1}})
    config.nested("inner")
    with pytest.raises(UserError, match=r"inner\.odd=1"):
        config.check_all_read()
