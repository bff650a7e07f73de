"""The page for those who come from x-transformers lists every argument that is not here, and no other."""

from __future__ import annotations

import inspect
import re
from importlib.metadata import version

import pytest

from blockdsl.registry.tokens import TOKEN_OPTIONS
from xt_blocks import Decoder, TransformerWrapper
from xt_blocks.models.layers import stack_keywords

from .pages import DOCS

PAGE = DOCS / "from-x-transformers.md"
HERE = {*stack_keywords(), *(option.name for option in TOKEN_OPTIONS), "attn_layers"}


def section(title: str) -> str:
    """The text under a heading."""
    return PAGE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


def absent() -> dict[str, set[str]]:
    """What the last table has, by row: the arguments that are not here."""
    rows = re.findall(r"^\| (.*?) \| (`.*`) \|$", section("What is not there"), re.MULTILINE)
    return {title.strip("`"): {*re.findall(r"`(\w+)`", names)} for title, names in rows}


def said_otherwise() -> set[str]:
    """Arguments that the table of orders spells in another way."""
    cells = re.findall(r"^\| (`.*?) \|", section("Order of the blocks"), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"\b([a-z]\w+)\b", cell)} - HERE


def test_what_is_not_there_is_refused() -> None:
    rows = absent()
    assert len(rows) == 6
    of_model = rows.pop("TransformerWrapper")
    for name in set.union(*rows.values()):
        with pytest.raises(TypeError, match=rf"Decoder\(\) got an unknown argument '{name}'"):
            Decoder(dim=8, depth=1, heads=2, **{name: 1})
    for name in of_model:
        with pytest.raises(TypeError, match=rf"TransformerWrapper\(\) got an unknown argument '{name}'"):
            TransformerWrapper(num_tokens=8, max_seq_len=8, attn_layers=Decoder(dim=8, depth=1, heads=2), **{name: 1})


def test_the_list_is_whole() -> None:
    """Beside the release that the page is about."""
    pytest.importorskip("x_transformers")
    if not version("x-transformers").startswith("2.31."):
        pytest.skip("another release than the page's")
    from x_transformers import TransformerWrapper as Theirs
    from x_transformers.x_transformers import Attention, AttentionLayers, FeedForward

    def arguments(cls: type, prefix: str = "", without: tuple[str, ...] = ()) -> set[str]:
        own = {*inspect.signature(cls.__init__).parameters} - {"self", "kwargs", *without}
        return {prefix + name for name in own}

    theirs = (
        arguments(AttentionLayers)
        | arguments(Attention, "attn_", ("dim", "heads", "causal"))
        | arguments(FeedForward, "ff_", ("dim",))
        | arguments(Theirs)
    )
    assert theirs - HERE - said_otherwise() == set.union(*absent().values())
