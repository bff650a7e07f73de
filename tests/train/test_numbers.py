"""The small pure functions: the unigram baseline, the learning rate, seeds."""

from __future__ import annotations

from math import cos, log2, pi
from pathlib import Path

import pytest
import torch

from xt_blocks.runtime.seeds import seed_for
from xt_blocks.train.schedule import learning_rate
from xt_blocks.train.threads import granted_cores, limit_threads, resume_threads
from xt_blocks.train.unigram import unigram_bits_per_byte


def tensor(text: bytes) -> torch.Tensor:
    return torch.tensor(list(text), dtype=torch.uint8)


def test_unigram_entropy_by_hand() -> None:
    # Training has three bytes: with one more for each of 256 values, a is 3, b is 2 and c 1 of 259.
    expected = -(2 * log2(3 / 259) + log2(2 / 259) + log2(1 / 259)) / 4
    assert unigram_bits_per_byte(tensor(b"aab"), tensor(b"abac")) == pytest.approx(expected, rel=1e-12)


def test_unigram_entropy_of_even_bytes_is_eight_bits() -> None:
    assert unigram_bits_per_byte(tensor(bytes(range(256))), tensor(b"any")) == pytest.approx(8, rel=1e-12)


def test_the_rate_rises_then_falls_along_a_cosine() -> None:
    rates = [learning_rate(step, 1000, 0.5) for step in range(1001)]
    assert rates[:50] == pytest.approx([0.5 * (i + 1) / 50 for i in range(50)])
    assert rates[50] == 0.5
    assert rates[525] == pytest.approx(0.5 * (0.1 + 0.9 * (1 + cos(pi / 2)) / 2))
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert rates[1000] == pytest.approx(0.05)


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_a_short_run_has_a_schedule_too(steps: int) -> None:
    rates = [learning_rate(step, steps, 1.0) for step in range(steps)]
    assert rates[0] == 1.0
    assert all(0.1 <= rate <= 1 for rate in rates)


def test_seeds_differ_by_purpose_run_and_step() -> None:
    seeds = {seed_for(purpose, run, step) for purpose in ("batch", "dropout") for run in range(9) for step in range(9)}
    assert len(seeds) == 2 * 9 * 9
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_for("batch", 1, 2) == seed_for("batch", 1, 2)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1), ("max 100000", None), ("", None)],
)
def test_a_containers_share_of_the_cores(tmp_path: Path, quota: str, cores: int | None) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert granted_cores(tmp_path / "cpu.max") == cores
    assert granted_cores(tmp_path / "none") is None


def test_threads_are_only_ever_taken_away(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        for granted, expected in (("9900000 100000", before), ("100000 100000", 1), ("max 100000", 1)):
            (tmp_path / "cpu.max").write_text(granted)
            assert limit_threads(tmp_path / "cpu.max") == torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


def test_a_resumed_run_has_the_threads_it_began_with_if_there_are_cores(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        (tmp_path / "cpu.max").write_text("300000 100000")
        assert resume_threads(3, tmp_path / "cpu.max")
        assert torch.get_num_threads() == 3
        (tmp_path / "cpu.max").write_text("200000 100000")
        assert not resume_threads(5, tmp_path / "cpu.max")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
