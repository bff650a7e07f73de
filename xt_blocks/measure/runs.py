"""Measurements of the model of a run, on text that it did not train on or on a given one."""

from __future__ import annotations

from dataclasses import replace
from math import log
from pathlib import Path

from blockdsl.measurements import Measurements

from ..train import RunFolder, data_of_run, load_trained
from ..train.engine import LocalEngine
from ..train.look import encoded, held_out, tokens_of
from .figures import recorded
from .importance import importance


def record_of_run(path: Path, text: bytes | None, device: str = "cpu") -> Measurements:
    """What the blocks of the run at `path` do with a text.

    Args:
        text: None: the first sequence of what the run held out from training.

    Raises:
        UserError: there is no trained run at `path`, or the text is empty or longer than the model reads.
    """
    model, run = load_trained(path, device), RunFolder.open(path)
    tokens = held_out(run) if text is None else encoded(run, text)
    what = " that the run did not train on" if text is None else ""
    return recorded(model, tokens_of(model, tokens), note=f"{len(tokens):,} tokens{what}")


def importance_of_run(path: Path, tokens: int, device: str = "cpu") -> Measurements:
    """The loss of the run at `path` with each block left out, in bits a byte, in the run's own precision.

    Args:
        tokens: how many are predicted at most, of what the run held out from training; at least one sequence is.

    Raises:
        UserError: there is no trained run at `path`, or its text is not there any more.
    """
    model, run = load_trained(path, device), RunFolder.open(path)
    told = f"if it was moved, `blockdsl train --resume {path} --text FILE` notes where it is"
    data, settings = data_of_run(run, told), run.settings
    sequences = data.validation(settings.seq_len, tokens)
    engine = LocalEngine(model, replace(settings, device=device, compile=False))
    nats = log(2) * data.bytes_per_token
    predicted = sequences.shape[0] * (sequences.shape[1] - 1)
    note = f"{predicted:,} tokens that the run did not train on"
    if data.digest != settings.text_digest:
        note += ", unless they were others then: the text has changed"
    return importance(
        model, sequences, loss=lambda _, rows: engine.loss(rows) / nats, unit="bits/byte", note=note, seed=settings.seed
    )
