"""Roles of parameters by their shapes at two widths, and the scales that muP changes, against the paper's table."""

from __future__ import annotations

import pytest

from blockdsl import BlockGraph, Kind, UserError, compile, register, unregister
from blockdsl.graph.mup import Scaling, scaling_of


def at(dim: int, text: str = "a f e", **settings: object) -> BlockGraph:
    given = {"heads": 2, "attn_dim_head": dim // 2, "num_tokens": 11, "max_seq_len": 8, **settings}
    return compile(text, dim=dim, **given)


def test_a_role_follows_from_the_axes_that_grow() -> None:
    assert scaling_of((64, 32), (16, 8), layer=True) == ("hidden", 4)
    assert scaling_of((11, 32), (11, 8), layer=True) == ("output", 4)
    assert scaling_of((11, 32), (11, 8), layer=False) == ("vector", 4)  # a table: its rows are vectors
    assert scaling_of((32, 11), (8, 11), layer=True) == ("vector", 4)
    assert scaling_of((32,), (8,), layer=True) == ("vector", 4)
    assert scaling_of((3, 64, 32), (3, 16, 8), layer=True) == ("hidden", 4)
    assert scaling_of((11, 4), (11, 4), layer=True) == ("fixed", 1)


def test_scales_are_those_of_table_3() -> None:
    """Columns: input weights and biases, output, hidden; with a width that has grown 16 times."""
    table = {"vector": (1, 1, 16), "output": (1 / 16, 1 / 16, 1 / 16), "hidden": (1 / 4, 1 / 16, 1)}
    for role, expected in table.items():
        own = Scaling(role, 16.0)
        assert (own.init, own.adam, own.sgd) == expected
    assert (Scaling("fixed", 1).init, Scaling("fixed", 1).adam, Scaling("fixed", 1).sgd) == (1, 1, 1)


def test_roles_of_blocks_by_hand() -> None:
    roles = at(32, "a f(mult=2) e@x e@x").width_roles(at(8, "a f(mult=2) e@x e@x"))
    assert {name: role.role for name, role in roles.items()} == {
        "a0.to_qkv.weight": "hidden",
        "a0.output.to_out.weight": "hidden",
        "f1.to_hidden.weight": "hidden",
        "f1.to_hidden.bias": "vector",
        "f1.to_out.weight": "hidden",
        "f1.to_out.bias": "vector",
        "e2.router.weight": "output",
        "e2.to_hidden.weight": "hidden",
        "e2.to_hidden.bias": "vector",
        "e2.to_out.weight": "hidden",
        "e2.to_out.bias": "vector",
    }
    assert {role.width_multiplier for role in roles.values()} == {4}


def test_a_users_kind_has_roles() -> None:
    shapes = {
        "gate.weight": lambda o: (3, o.dim),
        "mix.weight": lambda o: (o.dim, o.dim),
        "start": lambda o: (3, o.dim),
    }
    kind = Kind("mine", "mine", (), lambda o: {k: f(o) for k, f in shapes.items()}, lambda o, s: 0, "torch.nn:Identity")
    register(kind)
    try:
        roles = at(32, "mine").width_roles(at(8, "mine"))
    finally:
        unregister("mine")
    assert [role.role for role in roles.values()] == ["output", "hidden", "vector"]


def test_scores_and_tied_logits_are_scaled_by_the_width_not_its_root() -> None:
    base, wide = at(8, "a f", tie_embedding=True), at(32, "a f", tie_embedding=True)
    assert base.with_mup(base) == base
    scaled = wide.with_mup(base)
    assert scaled.block("a0")["options"]["qk_scale"] == pytest.approx(4**-0.5 / 4)  # heads of 16 features, not 4
    assert scaled.nx.nodes[scaled.end]["logits_scale"] == pytest.approx(8**-0.5 / 4)
    assert scaled.with_mup(base) == scaled, "it follows from the base alone"
    given = at(32, "a f", attn_qk_scale=0.3).with_mup(at(8, "a f", attn_qk_scale=0.3))
    assert given.block("a0")["options"]["qk_scale"] == pytest.approx(0.3 / 4)
    assert at(32, "a f", attn_dim_head=4, heads=8).with_mup(base).block("a0")["options"]["qk_scale"] is None
    assert at(32, "a f").with_mup(at(8, "a f")).nx.nodes[scaled.end]["logits_scale"] is None, "by its weights"


def test_both_streams_are_scaled() -> None:
    wide, base = (compile("a f => a c f", dim=dim, heads=2, attn_dim_head=dim // 2) for dim in (32, 8))
    graphs = wide.with_mup(base).streams()
    scales = {node: g.block(node)["options"]["qk_scale"] for g in graphs.values() for node in g.nodes("block")[:-1]}
    assert scales.keys() == {"a0", "c1"}
    assert set(scales.values()) == {0.125}


@pytest.mark.parametrize(("text", "base"), [("a ^u f <u(cat)", "a f"), ("a => a c f", "a c f")])
def test_the_base_is_wired_alike(text: str, base: str) -> None:
    with pytest.raises(UserError, match="another pattern"):
        compile(text, dim=16, heads=2).with_mup(compile(base, dim=8, heads=2))


def test_the_base_is_a_graph() -> None:
    with pytest.raises(TypeError, match="base must be a graph"):
        compile("a f", dim=16, heads=2).with_mup(8)  # type: ignore[arg-type]


def test_the_base_is_of_the_same_pattern() -> None:
    with pytest.raises(UserError, match="another pattern"):
        at(32, "a f").with_mup(at(8, "a a"))
