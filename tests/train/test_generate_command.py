"""`blockdsl generate`: the text of a trained run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from blockdsl.errors import UserError
from xt_blocks.train import load_trained, printable, sample
from xt_blocks.train.sample import example_prompt

Blockdsl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(run_of: Callable[..., Path], small: list[str]) -> Path:
    return run_of("generate", *small)


def test_the_prompt_goes_on_for_so_many_bytes(run: Path, blockdsl: Blockdsl) -> None:
    # 50 bytes are more than the 19 the model was trained to look back on.
    status, out, err = blockdsl("generate", run, "--prompt", "the é", "--tokens", "50", "--seed", "3")
    assert (status, err) == (0, "")
    assert out.startswith("the é")
    new = sample(load_trained(run), "the é".encode(), 50, temperature=0.8, seed=3)
    assert len(new) == 50
    assert out == "the é" + printable(new) + "\n"


def test_a_seed_gives_the_same_text_and_its_absence_another(run: Path, blockdsl: Blockdsl) -> None:
    texts = [blockdsl("generate", run, "--seed", seed)[1] for seed in ("7", "7", "-8", "9" * 30)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3
    _, out, err = blockdsl("generate", run)
    assert blockdsl("generate", run, "--seed", err.removeprefix("seed ").strip())[1] == out
    assert blockdsl("generate", run)[1] != out


def test_the_likeliest_byte_whichever_way_it_is_asked_for(run: Path, blockdsl: Blockdsl) -> None:
    greedy = blockdsl("generate", run, "--prompt", "the", "--temperature", "0")
    assert greedy[2] == ""
    for flags in (["--top-k", "1"], ["--top-p", "1e-9"]):
        assert blockdsl("generate", run, "--prompt", "the", *flags, "--seed", "1")[1] == greedy[1]
    assert blockdsl("generate", run, "--prompt", "the", "--seed", "1")[1] != greedy[1]


def test_a_search_draws_nothing(run: Path, blockdsl: Blockdsl) -> None:
    found = blockdsl("generate", run, "--prompt", "the", "--tokens", "5", "--beams", "2")
    assert found == (0, "the" + printable(sample(load_trained(run), b"the", 5, beams=2)) + "\n", "")
    _, out, _ = blockdsl("generate", run, "--prompt", "the", "--tokens", "5", "--beams", "1")
    assert out == blockdsl("generate", run, "--prompt", "the", "--tokens", "5", "--temperature", "0")[1]


def test_an_empty_prompt_starts_a_line(run: Path) -> None:
    model = load_trained(run)
    assert sample(model, b"", 30, seed=1) == sample(model, b"\n", 30, seed=1) != sample(model, b"q", 30, seed=1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tokens", "0"], "--tokens must be at least 1, not 0"),
        (["--temperature", "-1"], "--temperature must be 0 or more, not -1"),
        (["--temperature", "nan"], "--temperature must be 0 or more, not nan"),
        (["--top-k", "0"], "--top-k must be at least 1, not 0"),
        (["--top-p", "1.5"], "--top-p must be more than 0 and at most 1, not 1.5"),
        (["--device", "toaster"], "--device toaster: no such device; try cpu or cuda"),
    ],
)
def test_a_value_that_cannot_be_is_refused(run: Path, blockdsl: Blockdsl, flags: list[str], message: str) -> None:
    status, out, err = blockdsl("generate", run, *flags)
    assert status in (1, 2)
    assert (out, err) == ("", f"blockdsl generate: {message}\n")


def test_what_is_no_trained_run_is_refused(run: Path, blockdsl: Blockdsl, tmp_path: Path) -> None:
    _, _, err = blockdsl("generate", tmp_path / "none")
    assert err == f"blockdsl generate: {tmp_path / 'none'}: no such run folder\n"
    for checkpoint in (run / "checkpoints").iterdir():
        (checkpoint / "state.json").unlink()
    _, _, err = blockdsl("generate", run)
    assert re.fullmatch(
        rf"blockdsl generate: checkpoint {run}/checkpoints/000040 cannot be read: .*\n"
        rf"  checkpoint {run}/checkpoints/000032 cannot be read: .*\n"
        r"  no checkpoint is left: the run has to be started again\n",
        err,
    )
    (run / "config.json").unlink()  # a run that has not ended
    shutil.rmtree(run / "checkpoints")
    _, _, err = blockdsl("generate", run)
    assert err == (
        f"blockdsl generate: {run}: has no checkpoint yet; `blockdsl train --resume {run}` trains it from the start\n"
    )


def test_a_damaged_checkpoint_gives_way_to_the_one_before(run: Path, blockdsl: Blockdsl) -> None:
    (run / "checkpoints/000040/optimizer.pt").write_bytes(b"")  # of no matter here
    flags = ["--prompt", "the", "--temperature", "0"]
    last = blockdsl("generate", run, *flags)
    assert (last[0], last[2]) == (0, "")
    (run / "checkpoints/000040/weights.safetensors").write_bytes(b"")
    status, out, err = blockdsl("generate", run, *flags)
    assert status == 0
    assert out.startswith("the")
    assert re.fullmatch(
        rf"note: checkpoint {run}/checkpoints/000040 cannot be read: .*; 000032, the one before, is used\n", err
    )
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["000032", "000040"]  # nothing is moved


def test_a_model_whose_logits_are_no_numbers_is_told(run: Path) -> None:
    model = load_trained(run)
    with torch.no_grad():
        model.to_logits.weight.fill_(torch.nan)
    with pytest.raises(UserError, match=r"^the model cannot be sampled: the model's logits: row 0 has a NaN$"):
        sample(model, b"the", 5)


@pytest.mark.parametrize("content", ["", "[]", "{", "\xff"])
def test_a_damaged_graph_is_told(run: Path, blockdsl: Blockdsl, content: str) -> None:
    (run / "graph.json").write_bytes(content.encode("latin-1"))
    for command in (["generate", run], ["train", "--resume", run]):
        status, _, err = blockdsl(*command)
        assert status == 1
        assert err.startswith(f"blockdsl {command[0]}: {run}/graph.json")
        assert "codec" not in err


def test_what_is_printed_commands_no_terminal() -> None:
    assert printable("ok é\n\t".encode() + b"\x1b[2J\x00\xff\x7f") == "ok é\n\t\ufffd[2J\ufffd\ufffd\ufffd"


def test_an_example_prompt_is_in_the_texts_manner() -> None:
    def prompt(text: bytes) -> str:
        return example_prompt(torch.tensor(list(text), dtype=torch.uint8))

    assert prompt(b"x = 1\nimport os\n\ndef f(): pass\n") == "def "
    assert prompt(b"ail of a line\n  1 a\nOnce upon\n") == "Once "
    assert prompt(b"\xff\xfe" * 9) == ""


@pytest.mark.parametrize("command", ["train", "generate"])
def test_help_loads_no_torch(command: str) -> None:
    program = (
        "import argparse, sys, importlib\n"
        "parser = argparse.ArgumentParser()\n"
        f"importlib.import_module('xt_blocks.cli.{command}').add_parser(parser.add_subparsers())\n"
        f"try: parser.parse_args(['{command}', '--help'])\n"
        "except SystemExit: print([name for name in sys.modules if name in ('torch', 'networkx', 'matplotlib')])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "examples:" in done.stdout
    assert done.stdout.endswith("[]\n")
