"""Text from a trained model.

Owns reading a run's model back, with its tokenizer, the prompt's bytes and printing it safely. Leaves the sampling
itself to `xt_blocks.AutoregressiveWrapper`.
"""

from __future__ import annotations

import re
import secrets
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blockdsl.errors import UserError

from .. import AutoregressiveWrapper, TransformerWrapper
from ..interop.text import Writer
from ..runtime.seeds import seed_for
from . import checkpoint
from .best import Best
from .model import build_model
from .run_folder import RunFolder

START = b"\n"
"""Used for an empty prompt: a model needs a byte to start from, and a text starts on a new line."""

EXAMPLE_BYTES = 2**16
"""How much of the text is searched for an example prompt."""


def load_trained(path: Path, device: str = "cpu") -> TransformerWrapper:
    """The model of the run at `path`, ready to evaluate, with the weights of its last checkpoint; of its best, where
    the run has patience.

    tokens (batch, seq) int64 -> logits (batch, seq, num_tokens). Where the last is damaged it is the one before, and
    standard error says so.

    Raises UserError when `path` is not a run folder, or holds no checkpoint that can be read.
    """
    run = RunFolder.open(path)
    model = build_model(run.graph(), run.settings.seed)
    found = checkpoint.restore(run.checkpoints, model)
    if found is None:
        raise UserError(f"{path}: has no checkpoint yet; `blockdsl train --resume {path}` trains it from the start")
    for note in found.notes():
        print(f"note: {note}", file=sys.stderr)
    best = Best.from_state(found.state.get("best"))
    if run.settings.patience is not None and best.step != found.state["step"]:
        checkpoint.load(checkpoint.at(run.checkpoints, best.step), model)
    return model.to(device).eval()


def load_run_writer(path: Path, device: str = "cpu") -> Writer:
    """The model of the run at `path` with its tokenizer, for one whose tokens are not bytes. A text starts with the
    token that ends documents. Raises UserError as `load_trained`."""
    run = RunFolder.open(path)
    end = run.settings.end
    ends = frozenset(() if end is None else (end,))
    return Writer(load_trained(path, device), run.read_tokenizer(), end, ends)


def sample(
    model: TransformerWrapper,
    prompt: bytes,
    tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    beams: int | None = None,
) -> bytes:
    """`tokens` new bytes after `prompt`; temperature 0 takes the likeliest byte each time.

    With `beams` it is the likeliest text that a search over so many finds, and nothing is drawn.

    Raises UserError when the model's logits are no numbers.
    """
    device = next(model.parameters()).device
    start = torch.tensor([list(prompt or START)], device=device, dtype=torch.int64)
    generator = torch.Generator(device).manual_seed(seed_for("sample", seed))
    drawing: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "generator": generator}
    writer = AutoregressiveWrapper(model)
    try:
        new = writer.generate(start, tokens, **drawing) if beams is None else writer.beam_search(start, tokens, beams)
    except ValueError as error:
        raise UserError(f"the model cannot be sampled: {error}") from None
    return bytes(new[0].tolist())


def printable(data: bytes) -> str:
    """`data` as text. Invalid UTF-8 and control characters (an untrained model writes any byte, and some are
    terminal commands) become U+FFFD."""
    text = data.decode("utf-8", errors="replace")
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)


def show_text(data: bytes, end: str = "\n") -> None:
    """Print `data` on standard output, replacing characters that it cannot show."""
    encoding = sys.stdout.encoding or "utf-8"
    print(printable(data).encode(encoding, errors="replace").decode(encoding), end=end, flush=True)


def example_prompt(valid: Tensor) -> str:
    """A prompt in the style of the text `valid` (bytes,): "def " for Python, else the first short word that
    starts a line; "" when there is none."""
    text = bytes(valid[:EXAMPLE_BYTES].tolist()).decode("utf-8", errors="replace")
    found = re.search(r"\n(def )", text) or re.search(r"\n([^\W\d_]{2,12} )", text)
    return found.group(1) if found else ""


def fresh_seed() -> int:
    """A random seed, short enough to type again."""
    return secrets.randbelow(10**6)
