"""How many steps fit into a number of minutes.

Owns that measurement. The steps are fixed before training starts, instead of stopping by the clock, so that
the learning rate's curve is known and a resumed run gives the same numbers.
"""

from __future__ import annotations

import copy
import time

from .. import TransformerWrapper
from .data import Corpus
from .loop import EVALUATIONS, bits_per_byte, train_step
from .optimizer import make_optimizer
from .settings import TrainSettings

WARMUP_STEPS = 3
LONGEST_TRIAL = 4.0
TRIAL_SHARE = 0.04
"""The seconds of trial: this share of the time, at most `LONGEST_TRIAL`."""


def steps_within(model: TransformerWrapper, corpus: Corpus, settings: TrainSettings, minutes: float) -> int:
    """The steps, at least 1, that take about `minutes` with the evaluations, as timed on a copy of `model`."""
    started = time.monotonic()
    trial = copy.deepcopy(model)
    bits_per_byte(trial, corpus.valid, settings.seq_len)
    evaluation = time.monotonic() - started
    optimizer = make_optimizer(trial, settings.lr)
    for step in range(WARMUP_STEPS):
        train_step(trial, optimizer, corpus, settings, step, rate=0.0)
    budget = min(LONGEST_TRIAL, TRIAL_SHARE * minutes * 60)
    began, timed = time.monotonic(), 0
    while timed == 0 or time.monotonic() - began < budget:
        train_step(trial, optimizer, corpus, settings, WARMUP_STEPS + timed, rate=0.0)
        timed += 1
    per_step = (time.monotonic() - began) / timed
    spent = time.monotonic() - started
    left = minutes * 60 - spent - (EVALUATIONS + 1) * evaluation
    return max(1, int(left / per_step))
