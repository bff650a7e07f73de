"""Colours of kinds: told apart by everybody, on paper too."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from blockdsl import kinds
from blockdsl.draw.color.hues import place
from blockdsl.draw.color.palette import _DARK, _LIGHT, HUES

# What linear RGB looks like to who lacks receptors of long, middle or short waves (Machado et al., 2009, Table 1).
VIEWS = {
    "all": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]


def lab(colours: list[str], view: str = "all") -> Tensor:
    """CIELAB of "#rrggbb" as somebody sees them: (colours, 3), lightness first."""
    srgb = torch.tensor([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours], dtype=torch.float64)
    linear = torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = (linear @ torch.tensor(VIEWS[view], dtype=torch.float64).T).clamp(0, 1)
    xyz = torch.tensor(XYZ, dtype=torch.float64)
    t = seen @ xyz.T / xyz.sum(1)
    f = torch.where(t > 216 / 24389, t ** (1 / 3), (24389 / 27 * t + 16) / 116)
    return torch.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def fills(mode: str) -> list[str]:
    return [hue[mode == "dark"][0] for hue in HUES]


def test_the_measure_itself() -> None:
    assert lab(["#ffffff", "#000000"])[:, 0].tolist() == pytest.approx([100, 0])
    assert lab(["#ff0000"])[0].tolist() == pytest.approx([53.24, 80.09, 67.20], abs=0.01)
    red, green = lab(["#c04040", "#6a7a2a"], "deuteranopia")
    assert (red - green).norm() < 0.6 * (lab(["#c04040"]) - lab(["#6a7a2a"])).norm()


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_every_two_kinds_are_told_apart(mode: str, view: str) -> None:
    """By a distance of 10 in CIELAB, where 2.3 is just noticeable (Mahy et al., 1994)."""
    assert torch.pdist(lab(fills(mode), view)).min() >= 10


@pytest.mark.parametrize("theme", [_LIGHT, _DARK])
@pytest.mark.parametrize("view", VIEWS)
def test_skips_and_shared_keys_are_told_from_every_other_line(theme: dict[str, str], view: str) -> None:
    others = ["line", "context", "condition", "position", "scores"]
    distances = torch.cdist(lab([theme["read"], theme["kv"]], view), lab([theme[role] for role in others], view))
    assert distances.min() >= 14
    assert torch.pdist(lab([theme["read"], theme["kv"]], view)).min() >= 14


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_in_grey_attention_feedforwards_and_experts_are_told_from_every_built_in_kind(mode: str) -> None:
    lightness = lab(fills(mode))[:, 0]
    of = {kind.name: float(lightness[place(kind.name)]) for kind in kinds().values() if kind.builtin}
    for one, other in combinations(of, 2):
        if {one, other} & {"a", "f", "e"}:
            assert abs(of[one] - of[other]) >= 4, (one, other)


def test_there_is_a_colour_for_each_built_in_kind() -> None:
    places = [place(kind.name) for kind in kinds().values() if kind.builtin]
    assert len({*places}) == len(places)
