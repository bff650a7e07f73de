"""What options say, as a key: the same for all that say the same, and no longer so once they are changed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import blockdsl
from blockdsl.registry.content import Content, Values, by_content, content

CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "__setitem__": lambda o: o.__setitem__("heads", 3),
    "__delitem__": lambda o: o.__delitem__("heads"),
    "__ior__": lambda o: o.__ior__({"heads": 3}),
    "clear": lambda o: o.clear(),
    "pop": lambda o: o.pop("heads"),
    "popitem": lambda o: o.popitem(),
    "setdefault": lambda o: o.setdefault("new", 1),
    "update": lambda o: o.update(heads=3),
}


def changing(name: str) -> bool:
    """Whether a dict may be another after this method, with arguments that any of them takes."""
    for arguments in ((), ("heads",), ({"new": 1},), ("new", 1)):
        values = {"heads": 2, "glu": True}
        try:
            getattr(values, name)(*arguments)
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
        if values != {"heads": 2, "glu": True}:
            return True
    return False


def test_every_way_to_change_a_dict_is_among_the_changes() -> None:
    methods = {name for name in dir(dict) if name not in ("__init__", "__new__", "__class__")}
    assert {name for name in methods if changing(name)} == CHANGES.keys()


@pytest.mark.parametrize("name", CHANGES)
def test_options_that_are_changed_say_something_else(name: str) -> None:
    options, plain = Values({"heads": 2, "glu": True}), {"heads": 2, "glu": True}
    before = content(options)
    assert CHANGES[name](options) == CHANGES[name](plain)
    assert content(options) is content(plain) is not before
    assert options == plain


def test_options_that_say_the_same_have_one_content() -> None:
    options = Values({"heads": 2, "window": (1, 2)})
    others = [dict(options), options.copy(), copy.copy(options), copy.deepcopy(options)]
    for other in [*others, pickle.loads(pickle.dumps(options))]:
        assert content(other) is content(options)
    assert pickle.loads(pickle.dumps(content(options))) is content(options)


@pytest.mark.parametrize("other", [True, 1.0, (1,), (True,), (1.0,), "1", None], ids=repr)
def test_values_that_are_equal_and_not_the_same_say_different_things(other: Any) -> None:
    known = [content({"x": value}) for value in (1, (1, 1))]
    assert content({"x": other}) not in known
    assert content({"x": (1,)}) is not content({"x": (True,)})


def test_a_copy_goes_its_own_way() -> None:
    options = Values({"heads": 2})
    before, other = content(options), options.copy()
    other["heads"] = 4
    assert content(options) is before
    assert options == {"heads": 2}
    assert content(other) is content({"heads": 4})


def test_a_value_that_changes_by_itself_is_looked_at_each_time() -> None:
    array = np.array([1, 2])
    options = Values({"window": array})
    before = content(options)
    assert not isinstance(before, Content)
    array[0] = 5
    assert content(options) != before


def test_an_answer_is_worked_out_once_for_all_that_say_the_same() -> None:
    asked: list[dict[str, Any]] = []

    @by_content
    def heads(name: str, options: Mapping[str, Any], times: int) -> Any:
        asked.append(dict(options))
        return name, options["heads"] * times

    options = Values({"heads": 2})
    assert heads("a", options, 3) == heads("a", {"heads": 2}, 3) == ("a", 6)
    assert asked == [{"heads": 2}]
    assert heads("b", options, 3) == ("b", 6)
    assert heads("a", options, 5) == ("a", 10)
    options["heads"] = 4
    assert heads("a", options, 3) == ("a", 12)
    assert len(asked) == 4


def test_blocks_of_a_graph_are_changed_one_by_one() -> None:
    graph = blockdsl.compile("(a f)*2", dim=64, heads=2)
    usual = graph.parameters()
    wide = blockdsl.compile("a f a f(mult=8)", dim=64, heads=2).parameters()
    other = graph.copy()
    other.nx.nodes["f3"]["options"]["mult"] = 8
    assert graph.parameters() == usual
    assert other.parameters() == wide
    graph.nx.nodes["f3"]["options"].update({"mult": 8})
    assert graph.parameters() == wide
    assert graph.nx.nodes["f1"]["options"]["mult"] == 4
