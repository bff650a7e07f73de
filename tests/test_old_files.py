"""Files that release 0.1.0 made load, and the models are the same: graphs, state dicts, a training run's folder.

`tests/data/v0_1_0/make.py` made them, with that release.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import blockdsl
import xt_blocks
from xt_blocks.cli import main

DATA = Path(__file__).parent / "data" / "v0_1_0"
MODELS = sorted(path.stem for path in (DATA / "models").glob("*.safetensors"))
# Other threads and other kernels sum in other orders.
CLOSE = {"atol": 1e-6, "rtol": 1e-5}


def built(spec: Any) -> Any:
    if isinstance(spec, dict) and "class" in spec:
        return getattr(xt_blocks, spec["class"])(**{name: built(value) for name, value in spec["kwargs"].items()})
    return spec


def read(name: str) -> tuple[nn.Module, dict[str, Tensor], dict[str, Tensor]]:
    """A model as its file says, without its weights; its state dict; inputs and outputs."""
    with safe_open(DATA / "models" / f"{name}.safetensors", "pt") as file:
        how, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if "graph" in how:
        model: nn.Module = xt_blocks.lower(blockdsl.BlockGraph.from_json(how["graph"]))
    else:
        model = built(json.loads(how["build"]))
    state = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    return model.eval(), state, {key: value for key, value in tensors.items() if not key.startswith("state.")}


def of(model: nn.Module, tensors: dict[str, Tensor]) -> Tensor:
    inputs = [tensors[f"input.{i}"] for i in range(sum(key.startswith("input.") for key in tensors))]
    out = model(*inputs, **{name: tensors[name] for name in ("context",) if name in tensors})
    assert isinstance(out, Tensor)
    return out


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_state_dict_loads_and_the_model_is_the_same(name: str) -> None:
    model, state, tensors = read(name)
    assert not torch.allclose(of(model, tensors), tensors["output"], **CLOSE)
    given = {key: value.clone() for key, value in state.items()}
    model.load_state_dict(given)  # strict: every key has its place, and every place a key
    assert given.keys() == state.keys(), "what is loaded is not changed"
    torch.testing.assert_close(of(model, tensors), tensors["output"], **CLOSE)
    model.load_state_dict(model.state_dict())
    torch.testing.assert_close(of(model, tensors), tensors["output"], **CLOSE)


@pytest.mark.parametrize("name", MODELS)
def test_no_key_of_a_state_dict_is_dropped(name: str) -> None:
    """Each tensor is somewhere in the model; of tied ones any."""
    model, state, _ = read(name)
    model.load_state_dict(state)
    held = list(model.state_dict().values())
    for key, value in state.items():
        assert any(value.shape == other.shape and torch.equal(value, other) for other in held), key


@pytest.mark.parametrize("name", [name for name in MODELS if "generated" in read(name)[2]])
@torch.no_grad()
def test_the_same_tokens_are_generated(name: str) -> None:
    model, state, tensors = read(name)
    model.load_state_dict(state)
    if isinstance(model, xt_blocks.XTransformer):
        out = model.generate(tensors["input.0"], tensors["input.1"][:, :1], 5, temperature=0.0)
    else:
        assert isinstance(model, xt_blocks.TransformerWrapper)
        out = xt_blocks.AutoregressiveWrapper(model).generate(tensors["input.0"], 5, temperature=0.0)
    assert torch.equal(out, tensors["generated"])


def test_a_graph_loads_with_todays_names() -> None:
    model, _, _ = read("parallel")
    g = model.graph
    assert isinstance(g, blockdsl.BlockGraph)
    assert [(node, attrs["type"], attrs.get("kind")) for node, attrs in g.nx.nodes(data=True)] == [
        ("input", "input", None),
        *[("a0", "block", "a"), ("f1", "block", "f"), ("sum0", "sum", None), ("a2", "block", "a")],
        *[("a3", "block", "a"), ("f4", "block", "f"), ("sum1", "sum", None), ("a5", "block", "a")],
        ("f6", "block", "f"),
        ("output", "output", None),
    ]
    settings = {"dim": 8, "heads": 2, "attn_dim_head": 4, "causal": True, "shift_tokens": 1}
    assert not g.diff(blockdsl.compile("(a & f a)*2 | f/2", **settings))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy of the run's folder, whose settings have the path of its text."""
    folder = tmp_path / "run"
    shutil.copytree(DATA / "run", folder)
    settings = json.loads((folder / "settings.json").read_text())
    settings["text"] = [str(DATA / name) for name in settings["text"]]
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder


def test_a_run_generates(run: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["generate", str(run), "--prompt", "the ", "--tokens", "24", "--temperature", "0"]) == 0
    assert capsysbinary.readouterr().out == (DATA / "run.txt").read_bytes()


def test_a_run_goes_on_with_the_numbers_it_would_have_had(run: Path) -> None:
    def records(path: Path) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]

    assert main(["train", "--resume", str(run), "--steps", "5"]) == 0
    ours, theirs = records(run / "metrics.jsonl"), records(DATA / "resumed.jsonl")
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert {name: mine[name] for name in other} == pytest.approx(other, rel=1e-5)  # a line says more by now
