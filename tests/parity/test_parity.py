"""Our modules against numbers that x-transformers gave, of the seed document's release and of today's."""

from __future__ import annotations

from typing import Any

import pytest

from . import peer

CASES = {f"{release}-{case['name']}": case for release in ("1_10_0", "2_31_10") for case in peer.cases(release)}


@pytest.mark.parametrize("name", CASES)
def test_output_is_the_peers(name: str) -> None:
    case = CASES[name]
    model = peer.loaded(case)
    ours, theirs = peer.output(case, model), peer.expected(case)
    assert ours.shape == theirs.shape
    mask: Any = case.get("kwargs", {}).get("mask")
    if mask is not None and theirs.ndim > 1:
        real = peer.tensor(mask)
        ours, theirs = ours[real], theirs[real]
    assert (ours - theirs).norm() <= 2e-5 * theirs.norm()


def test_all_cases_are_there() -> None:
    assert len(CASES) == (75 + 4 + 7) + (53 + 14 + 29 + 9 + 4)
