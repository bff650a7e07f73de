"""A device that there is not: every public function that takes one says so in words, with the nearest name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import blockdsl
import xt_blocks
from blockdsl import Mesh, UserError
from xt_blocks import train
from xt_blocks.interop.text import load_writer
from xt_blocks.runtime.devices import device_of
from xt_blocks.train.look import draw_attention

GRAPH = blockdsl.compile("a f", dim=8, heads=1, causal=True, num_tokens=8, max_seq_len=8)
AWAY = Path("nowhere")
MODELS = [
    value
    for value in (getattr(xt_blocks, name) for name in xt_blocks.__all__)
    if inspect.isclass(value) and hasattr(value, "from_pretrained")
]
CALLS: dict[str, Callable[[Any], Any]] = {
    "profile": lambda device: xt_blocks.profile(GRAPH, device=device),
    "distribute": lambda device: xt_blocks.distribute(GRAPH, "fsdp=2", device=device),
    "load_trained": lambda device: train.load_trained(AWAY, device),
    "load_job": lambda device: train.load_job(AWAY, Mesh(), device),
    "load_run_writer": lambda device: train.load_run_writer(AWAY, device),
    "draw_attention": lambda device: draw_attention(AWAY, b"text", "a0", 0, "svg", device),
    "load_writer": lambda device: load_writer(AWAY, device),
}


@pytest.mark.parametrize("call", [*CALLS.values(), *(model.from_pretrained for model in MODELS)])
def test_it_is_said_before_anything_is_read(call: Callable[..., Any]) -> None:
    given = {"folder": AWAY, "device": "gpu"} if inspect.ismethod(call) else {"device": "gpu"}
    with pytest.raises(UserError, match=r"device='gpu': no such device; did you mean 'cuda'\?"):
        call(**given)


def test_every_public_function_that_takes_one_is_tried() -> None:
    public = [getattr(owner, name) for owner in (xt_blocks, train) for name in owner.__all__]
    functions = {each.__name__ for each in public if inspect.isfunction(each)}
    takes = {
        name
        for name in functions
        if "device" in inspect.signature(getattr(xt_blocks, name, None) or getattr(train, name)).parameters
    }
    assert takes - {"peak_flops"} <= {*CALLS}
    assert len(MODELS) > 8


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gpu", "device='gpu': no such device; did you mean 'cuda'?"),
        ("GPU:1", "device='GPU:1': no such device; did you mean 'cuda:1'?"),
        ("cdua", "device='cdua': no such device; did you mean 'cuda'?"),
        ("metal", "device='metal': no such device; did you mean 'mps'?"),
        ("toaster", "device='toaster': no such device; try cpu or cuda"),
        (3.5, "device=3.5: no such device; try cpu or cuda"),
    ],
)
def test_the_nearest_name(name: Any, told: str) -> None:
    with pytest.raises(UserError) as error:
        device_of(name)
    assert str(error.value) == told


def test_a_device_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("Torch not compiled with CUDA enabled\nmore")

    assert device_of("cpu:0") == torch.device("cpu", 0)
    monkeypatch.setattr(torch, "zeros", refused)
    with pytest.raises(UserError) as error:
        device_of(torch.device("cuda", 1))
    assert str(error.value) == "device='cuda:1': not available here (Torch not compiled with CUDA enabled)"
