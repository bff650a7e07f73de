"""What can be written: the settings, the options of a name that is called, and other words for both."""

from __future__ import annotations

from ..language.macros import MACROS
from ..registry.kinds import kinds
from ..registry.options import Option
from ..registry.reads import JOINS, WHICH
from ..registry.settings import table
from ..registry.streams import pair_table


def known_settings(pair: bool) -> dict[str, Option]:
    """The settings by name; `pair`: of two streams."""
    return pair_table() if pair else table()


def known_options(owner: str) -> dict[str, Option]:
    """What may stand in the parentheses of a kind or a macro, by name."""
    if owner in kinds():
        return kinds()[owner].written_by_name
    return {param.name: param for param in MACROS[owner].params} if owner in MACROS else {}


READ_WORDS = {
    **WHICH,
    **{join.name: f"{join.formula}: {join.doc}" for join in JOINS.values()},
    "init": "what the learned numbers are at first",
}
"""What may stand in the parentheses of a read, and what it means."""
