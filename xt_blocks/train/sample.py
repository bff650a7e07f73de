"""Text from a trained model.

Owns reading a run's model back, with its tokenizer, the prompt's bytes and printing it safely. Leaves the sampling
itself to `xt_blocks.AutoregressiveWrapper`.
"""

from __future__ import annotations

import re
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blockdsl.errors import UserError

from .. import AutoregressiveWrapper, TransformerWrapper
from ..interop.text import Bytes, Writer
from ..runtime.devices import device_of
from ..runtime.seeds import seed_for
from . import checkpoint
from .best import Best
from .checkpoint import Restored
from .model import build_model
from .run_folder import RunFolder

if TYPE_CHECKING:
    from blockdsl.plan.mesh import Mesh

    from ..distributed.job import Job

START = b"\n"
"""Used for an empty prompt: a model needs a byte to start from, and a text starts on a new line."""

EXAMPLE_BYTES = 2**16
"""How much of the text is searched for an example prompt."""


def load_trained(path: Path, device: str = "cpu") -> TransformerWrapper:
    """The model of the run at `path`, ready to evaluate, with the weights of its last checkpoint; of its best, where
    the run has patience.

    tokens (batch, seq) int64 -> logits (batch, seq, num_tokens). Where the last is damaged it is the one before, and
    standard error says so.

    Raises UserError when there is no such device, or `path` is not a run folder, or holds no checkpoint that can be
    read.
    """
    place, run = device_of(device), RunFolder.open(path)
    model = build_model(run.graph(), run.settings.seed)
    found, better = _best(run, checkpoint.restore(run.checkpoints, model))
    for note in found.notes():
        print(f"note: {note}", file=sys.stderr)
    if better is not None:
        checkpoint.load(better, model)
    return model.to(place).eval()


def load_job(path: Path, mesh: Mesh, device: str = "cpu", **loops: int) -> Job:
    """This rank's part of the model of the run at `path`, as `load_trained` has it; every rank calls this.

    Args:
        loops: how often tied units are repeated, as `with_loops` has them.
    """
    from ..distributed.job import Job  # loads much of torch that one process does not need
    from . import mesh_checkpoint

    place, run = device_of(device), RunFolder.open(path)
    job = Job(run.graph().with_loops(**loops), mesh, seed=run.settings.seed, device=place)
    found, better = _best(run, mesh_checkpoint.restore_on_ranks(run.checkpoints, job))
    for note in found.notes() if job.ranks.main else ():
        print(f"note: {note}", file=sys.stderr)
    if better is not None:
        mesh_checkpoint.load_on_ranks(better, job)
    return job


def _best(run: RunFolder, found: Restored | None) -> tuple[Restored, Path | None]:
    """What was found, and the checkpoint to read in its place. Raises UserError when there was none."""
    if found is None:
        raise UserError(
            f"{run.path}: has no checkpoint yet; `blockdsl train --resume {run.path}` trains it from the start"
        )
    best = Best.from_state(found.state.get("best"))
    if run.settings.patience is None or best.step == found.state["step"]:
        return found, None
    return found, checkpoint.at(run.checkpoints, best.step)


def load_run_writer(path: Path, device: str = "cpu") -> Writer:
    """The model of the run at `path` with its tokenizer, for one whose tokens are not bytes. A text starts with the
    token that ends documents. Raises UserError as `load_trained`."""
    model, run = load_trained(path, device), RunFolder.open(path)
    end = run.settings.end
    ends = frozenset(() if end is None else (end,))
    return Writer(model, run.read_tokenizer(), end, ends)


def sample(model: TransformerWrapper, prompt: bytes, tokens: int, **drawing: Any) -> bytes:
    """`tokens` new bytes after `prompt`; temperature 0 takes the likeliest byte each time.

    With `beams` it is the likeliest text that a search over so many finds, and nothing is drawn.

    Args:
        drawing: temperature=1.0, top_k=None, top_p=None, seed=0 and beams=None.

    Raises UserError when the model's logits are no numbers.
    """
    device = next(model.parameters()).device
    return bytes(_drawn(AutoregressiveWrapper(model), [*(prompt or START)], tokens, device, **drawing))


def sample_over_ranks(job: Job, run: RunFolder, prompt: bytes, tokens: int, **drawing: Any) -> bytes:
    """The text that a run's model over ranks adds to a prompt, as one process adds it; every rank calls this.

    Args:
        drawing: as of `sample`.
    """
    tokenizer, end, device = run.read_tokenizer(), run.settings.end, job.ranks.device
    if isinstance(tokenizer, Bytes):
        return bytes(_drawn(job, [*(prompt or START)], tokens, device, **drawing))
    read = tokenizer.encode(prompt.decode(errors="surrogateescape")) or ([] if end is None else [end])
    if not read:
        raise UserError("the prompt is empty, and the model has no token that starts a text: give --prompt")
    new = _drawn(job, read, tokens, device, end, **drawing)
    if end in new:
        new = new[: new.index(end)]
    return tokenizer.decode(read + new)[len(tokenizer.decode(read)) :].encode()


def _drawn(
    writer: AutoregressiveWrapper | Job,
    start: list[int],
    tokens: int,
    device: torch.device,
    end: int | None = None,
    *,
    seed: int = 0,
    beams: int | None = None,
    **drawing: Any,
) -> list[int]:
    """The tokens that follow `start`, up to the one that is the `end`."""
    given = torch.tensor([start], device=device, dtype=torch.int64)
    drawing["generator"] = torch.Generator(device).manual_seed(seed_for("sample", seed))
    ends: dict[str, Any] = {} if end is None else {"eos_token": end}
    try:
        if beams is None:
            new = writer.generate(given, tokens, **drawing, **ends)
        else:
            new = writer.beam_search(given, tokens, beams, **ends)
    except ValueError as error:
        raise UserError(f"the model cannot be sampled: {error}") from None
    out: list[int] = new[0].tolist()
    return out


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
