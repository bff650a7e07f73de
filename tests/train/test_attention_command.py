"""`blockdsl attention`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import matplotlib.text
import pytest
import torch

from xt_blocks import attention_map
from xt_blocks.train import load_trained
from xt_blocks.train.look import _figure, byte_name

from ..cli.conftest import process

Blockdsl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(run_of: Callable[..., Path], small: list[str]) -> Path:
    small[small.index("--pattern") + 1] = "(a f)*2"
    small[small.index("--heads") + 1] = "2"
    return run_of("attention", *small, "--set", "attn_num_mem_kv=2")


def test_the_image_is_written(run: Path, blockdsl: Blockdsl, tmp_path: Path) -> None:
    to = tmp_path / "map.png"
    flags = ["--block", "a2", "--head", "1", "--text", "the é\n$x"]
    assert blockdsl("attention", run, *flags, "-o", to) == (0, f"wrote {to}\n", "")
    height, width, _ = matplotlib.image.imread(to).shape
    assert min(height, width) > 300
    for ending, start in ((".svg", b"<?xml"), (".pdf", b"%PDF")):
        assert blockdsl("attention", run, *flags, "-o", to.with_suffix(ending))[0] == 0
        assert to.with_suffix(ending).read_bytes().startswith(start)
    ran = process("attention", run, *flags, "-o", "-")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout.startswith(b"\x89PNG")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(run: Path, blockdsl: Blockdsl, tmp_path: Path) -> None:
    (run / "checkpoints/000040/weights.safetensors").write_bytes(b"not weights")
    for command in (
        ["attention", run, "--block", "a0", "--text", "the", "-o", tmp_path / "map.png"],
        ["draw", run, "--overlay", "stream_norm", "-o", tmp_path / "map.svg"],
    ):
        status, _, err = blockdsl(*command)
        assert status == 0
        assert err.startswith(f"note: checkpoint {run}/checkpoints/000040 cannot be read: ")
        assert err.endswith("; 000032, the one before, is used\n")


def drawn(figure: Any) -> tuple[torch.Tensor, list[str], list[str]]:
    """The numbers of a figure's map, and what its columns and rows are called."""
    axes = figure.axes[0]
    ticks = ([tick.get_text() for tick in axis.get_ticklabels()] for axis in (axes.xaxis, axes.yaxis))
    return torch.tensor(axes.images[0].get_array()), *ticks  # type: ignore[return-value]


def test_the_map_has_a_row_a_byte_and_a_column_a_memory_and_byte(run: Path) -> None:
    model = load_trained(run)
    text = b"ab \n\xff"
    weights = attention_map(model, torch.tensor([[*text]]), "a2", 1)
    assert weights.shape == (5, 7)
    numbers, columns, rows = drawn(_figure(weights, [byte_name(byte) for byte in text], "a2, head 1"))
    torch.testing.assert_close(numbers, weights)
    assert columns == ["mem", "mem", "a", "b", "␣", "↵", "ff"]
    assert rows == columns[2:]
    assert (numbers[0, 3:] == 0).all(), "a byte sees none behind it"


def test_a_long_text_is_named_every_few_bytes() -> None:
    _, columns, rows = drawn(_figure(torch.ones(250, 250), [f"{i}" for i in range(250)], ""))
    assert columns == rows == [f"{i}" for i in range(0, 250, 3)]


def test_bytes_are_named_by_what_can_be_seen() -> None:
    names = [byte_name(byte) for byte in range(256)]
    assert len({*names}) == 256
    assert (names[0], names[9], names[65], names[126], names[127], names[255]) == ("00", "⇥", "A", "~", "7f", "ff")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"--block": "f1"}, "f1 has no attention; those with attention are a0, a2"),
        ({"--block": "a7"}, "a7 is not a block of the model; those with attention are a0, a2"),
        ({"--head": "2"}, "head must be from 0 to 1, not 2"),
        ({"--head": "-1"}, "head must be from 0 to 1, not -1"),
        ({"--text": ""}, "the text is empty: give at least one byte"),
        ({"--text": "x" * 20}, "the text has 20 bytes, and the model reads 19"),
        ({"-o": "map.doc"}, "map.doc: an image's name ends in .png, .svg or .pdf"),
        ({"-o": "nowhere/map.png"}, "cannot write nowhere/map.png: No such file or directory"),
        ({"--device": "toaster"}, "--device toaster: no such device; try cpu or cuda"),
    ],
)
def test_what_cannot_be_drawn_is_refused(run: Path, blockdsl: Blockdsl, flags: dict[str, str], message: str) -> None:
    given = {"--block": "a0", "--text": "the"} | flags
    status, out, err = blockdsl("attention", run, *[word for flag in given.items() for word in flag])
    assert status in (1, 2)
    assert (out, err) == ("", f"blockdsl attention: {message}\n")


def test_a_run_is_needed(blockdsl: Blockdsl, tmp_path: Path) -> None:
    _, _, err = blockdsl("attention", tmp_path / "none", "--block", "a0", "--text", "x")
    assert err == f"blockdsl attention: {tmp_path / 'none'}: no such run folder\n"
