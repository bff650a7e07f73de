"""Programs written for x-transformers run here, with the import changed."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import xt_blocks.x_transformers

from .everything import PROGRAMS
from .programs import outcome


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs(name: str) -> None:
    assert outcome(PROGRAMS[name], xt_blocks.x_transformers) is None


SEED = Path(__file__).parents[1].joinpath("test_seed_document.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", re.findall(r"^def (test_\w+)", SEED, re.MULTILINE))
def test_a_model_of_the_seed_document(name: str) -> None:
    """The same models as of `xt_blocks` itself."""
    names: dict[str, Any] = {}
    exec(SEED.replace("from xt_blocks import", "from xt_blocks.x_transformers import"), names)
    assert names["Decoder"] is xt_blocks.x_transformers.Decoder
    names[name]()


def test_a_program_that_fails_is_seen() -> None:
    assert outcome(lambda x: x.nothing, xt_blocks.x_transformers) is not None


def test_no_program_warns_but_those_about_keywords() -> None:
    for name, run in PROGRAMS.items():
        if name in ("ignores_keywords_as_1x", "writes_keywords_without_a_side"):
            continue
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            for own in ("There is a performance drop", "torch.quantize_per_tensor"):  # torch's
                warnings.filterwarnings("ignore", own)
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            run(xt_blocks.x_transformers)
