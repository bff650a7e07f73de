"""How many steps fit into a number of minutes.

Owns that measurement. The steps are fixed before training starts, instead of stopping by the clock, so that
the learning rate's curve is known and a resumed run gives the same numbers.
"""

from __future__ import annotations

import copy
import time

from .. import TransformerWrapper
from .data import Data
from .engine import LocalEngine
from .loop import EVALUATIONS, bits_per_byte
from .settings import TrainSettings

WARMUP_STEPS = 3
LONGEST_TRIAL = 4.0
TRIAL_SHARE = 0.04
"""The seconds of trial: this share of the time, at most `LONGEST_TRIAL`."""


def steps_within(model: TransformerWrapper, corpus: Data, settings: TrainSettings, minutes: float) -> int:
    """The steps, at least 1, that take about `minutes` with the evaluations, as timed on a copy of `model`."""
    started = time.monotonic()
    engine = LocalEngine(copy.deepcopy(model), settings)
    if settings.compile:
        bits_per_byte(engine, corpus, settings.seq_len)  # compiling takes longer than any evaluation
    began = time.monotonic()
    bits_per_byte(engine, corpus, settings.seq_len)
    evaluation = time.monotonic() - began

    def trial(step: int) -> None:
        engine.step(corpus.batch(settings.seq_len, settings.batch, settings.seed, step), step, rate=0.0)

    for step in range(WARMUP_STEPS):
        trial(step)
    budget = min(LONGEST_TRIAL, TRIAL_SHARE * minutes * 60)
    began, timed = time.monotonic(), 0
    while timed == 0 or time.monotonic() - began < budget:
        trial(WARMUP_STEPS + timed)
        timed += 1
    per_step = (time.monotonic() - began) / timed
    spent = time.monotonic() - started
    if settings.val_every is None:
        left = minutes * 60 - spent - (EVALUATIONS + 1) * evaluation
    else:
        left = minutes * 60 - spent - 2 * evaluation  # before the first step and after the last
        per_step += evaluation / settings.val_every
    return max(1, int(left / per_step))
