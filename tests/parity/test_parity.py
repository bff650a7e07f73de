"""Our modules against numbers that x-transformers gave, of the seed document's release and of today's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from . import peer

OLD, NEW = peer.cases("1_10_0"), peer.cases("2_31_10")
RUNS = [(case, True) for case in OLD] + [(case, False) for case in NEW]


@pytest.mark.parametrize(("case", "old"), RUNS, ids=[case["name"] for case, _ in RUNS])
def test_output_is_the_peers(case: dict[str, Any], old: bool) -> None:
    model = peer.build(case, old)
    with torch.no_grad():
        ours = peer.output(model, case)
    theirs = peer.expected(case)
    assert ours.shape == theirs.shape
    mask = peer.tensor(case.get("kwargs", {}).get("mask"))
    if mask is not None and theirs.ndim > 1:
        ours, theirs = ours[mask], theirs[mask]
    assert (ours - theirs).norm() <= 2e-5 * theirs.norm()


def test_the_cases_cover_what_is_built() -> None:
    names = {case["name"] for case, _ in RUNS}
    assert len(OLD) >= 25
    assert len(NEW) >= 20
    assert {
        "macaron",
        "par_ratio",
        "shift_tokens_2",
        "residual_attn_post_norm",
        "now_rotary_full",
        "cross_attender",
        *("use_scalenorm", "sandwich_norm", "scale_residual", "gate_residual", "deepnorm"),
        *("attn_mask", "self_attn_context_mask"),
        *("now_xl_mems_rotary", "now_xl_mems_shift_down", "now_rel_pos_mems"),
        *("now_use_scalenorm", "now_sandwich_norm", "now_sandwich_coef", "now_scale_residual", "now_gate_residual"),
    } <= names
