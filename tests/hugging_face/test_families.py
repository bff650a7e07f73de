"""Every family is compared with `transformers` in at least three configurations, and can be read and written."""

from __future__ import annotations

from importlib import import_module

import pytest

from blockdsl.hugging_face import families, read
from blockdsl.hugging_face.family import Family

FAMILIES = {family.read.__module__.rpartition(".")[2]: family for family in families().values()}


@pytest.mark.parametrize("name", FAMILIES)
def test_is_compared(name: str) -> None:
    test = import_module(f".test_{name}", __package__)
    assert len(test.CASES) >= 3
    readings = [read(peer.config.to_dict(), type(peer).__name__) for peer in map(test.peer, test.CASES)]
    assert all(reading.family is FAMILIES[name] for reading in readings)
    said = [(reading.architecture, reading.texts) for reading in readings]
    assert all(one != other for i, one in enumerate(said) for other in said[:i]), "two cases are the same model"


@pytest.mark.parametrize("name", FAMILIES)
def test_says_where_it_is_from(name: str) -> None:
    family: Family = FAMILIES[name]
    assert family.source
    assert family.architectures


def test_a_model_type_is_read_by_one_family() -> None:
    known = [name for family in FAMILIES.values() for name in family.model_types]
    assert sorted(known) == sorted({*known})
