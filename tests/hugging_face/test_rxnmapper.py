"""ALBERT with published weights: RXNMapper's model of chemical reactions (Schwaller et al., doi:10.1126/sciadv.abe4166).

The package has it, 3 MB under the MIT licence. Its files alone are read, and nothing of it is imported:

    pip install --no-deps rxnmapper==0.4.3
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AlbertForMaskedLM

import xt_blocks

(PACKAGE,) = find_spec("rxnmapper").submodule_search_locations  # type: ignore[union-attr, misc]
FOLDER = Path(PACKAGE) / "models" / "transformers" / "albert_heads_8_uspto_all_1310k"
REACTIONS = (
    "CC(=O)O.OCC>>CC(=O)OCC",
    "BrC1=CC=CC=C1.OB(O)C1=CC=CN=C1>>C1=CC=C(C=C1)C1=CC=CN=C1",
)


def tokens() -> tuple[Tensor, Tensor]:
    """Numbers of the reactions' tokens, (batch, seq), and which are real."""
    numbers = {token: i for i, token in enumerate((FOLDER / "vocab.txt").read_text().split("\n"))}
    rows = [["[CLS]", *re.findall(r">>|Br|Cl|\[[^]]*\]|.", reaction), "[SEP]"] for reaction in REACTIONS]
    longest = max(map(len, rows))
    padded = [[numbers[token] for token in row] + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(padded), torch.arange(longest) < torch.tensor([[len(row)] for row in rows])


def both(dtype: torch.dtype) -> tuple[Any, Any]:
    """Their model and ours."""
    theirs = AlbertForMaskedLM.from_pretrained(FOLDER, attn_implementation="eager", weights_only=True)
    with pytest.warns(UserWarning, match=r"not loaded, as they are of another head: albert\.pooler\.weight"):
        return theirs.to(dtype).eval(), xt_blocks.from_hugging_face(FOLDER, dtype=dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_logits_and_attention_are_theirs(dtype: torch.dtype, tolerance: float) -> None:
    """To so much of the largest logit."""
    theirs, ours = both(dtype)
    x, mask = tokens()
    with torch.no_grad():
        expected = theirs(x, attention_mask=mask.long(), output_attentions=True)
        logits, weights = ours(x, mask=mask, return_attn=True)
    largest = expected.logits.abs().max()
    assert largest > 10  # it has learned something
    assert (logits - expected.logits)[mask].abs().max() / largest < tolerance
    assert len(weights) == len(expected.attentions) == 12
    for own, other in zip(weights, expected.attentions, strict=True):
        for row, real in enumerate(mask):
            torch.testing.assert_close(own[row][:, real], other[row][:, real], rtol=0, atol=10 * tolerance)


def test_it_has_one_layer_twelve_times() -> None:
    _, ours = both(torch.float32)
    assert ours.graph.pattern.endswith("; (a@a0 f@f0)*12")
    assert ours.graph.parameters() == sum(p.numel() for p in ours.parameters()) == 735_567


def test_it_knows_the_tokens_that_are_hidden() -> None:
    """It was trained to: four of five, one hidden at a time."""
    _, ours = both(torch.float32)
    x, mask = tokens()
    hidden = (FOLDER / "vocab.txt").read_text().split("\n").index("[MASK]")
    known = [
        bool(ours(row.clone().index_fill(0, torch.tensor([place]), hidden)[None])[0, place].argmax() == row[place])
        for row in (x[i][mask[i]] for i in range(len(x)))
        for place in range(1, len(row) - 1)
    ]
    assert sum(known) > 0.8 * len(known)
