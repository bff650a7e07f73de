"""Random models give what the installed x-transformers gives, or the loader says where they do not."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("x_transformers")

from . import agreement
from .agreement import STACK, Setup

TOKENS = agreement.token_sizes()


@pytest.mark.parametrize("seed", range(4))
def test_no_random_model_differs_in_silence(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(8):
        setup = agreement.random_setup(rng, agreement.peer_release())
        outcome = agreement.agreement(setup)
        assert outcome.kind not in agreement.FAULTS, f"{setup}: {outcome.words}"


def test_a_difference_is_found_and_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a loader which does not know that macaron's halves come before the sandwich norm."""
    from xt_blocks.interop import stack

    plain = stack._load_feedforward
    monkeypatch.setattr(stack, "_load_feedforward", lambda *given: plain(*given[:-1], 1.0))
    layers = STACK | {"macaron": True, "sandwich_norm": True, "ff_glu": True, "attn_head_scale": True}
    setup = Setup("Decoder", layers, "TransformerWrapper", TOKENS, "", {"rows": 2, "mask": True})
    assert agreement.agreement(setup).kind == "DIFFERS IN SILENCE"
    least = agreement.shrunk(setup, "DIFFERS IN SILENCE")
    assert str(least) == "Decoder(macaron=True, sandwich_norm=True) given rows=1"
    monkeypatch.undo()
    assert agreement.agreement(setup).kind == "equal"
