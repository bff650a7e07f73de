"""The mesh: its text, its size, where a rank stands, and what is no mesh."""

from __future__ import annotations

import pytest

from blockdsl import UserError
from blockdsl.plan.mesh import Mesh


@pytest.mark.parametrize(
    ("text", "mesh", "canonical"),
    [
        ("pp=2,tp=4", Mesh(pp=2, tp=4), "pp=2,tp=4"),
        ("tp=4, pp=2", Mesh(pp=2, tp=4), "pp=2,tp=4"),
        ("fsdp=8", Mesh(fsdp=8), "fsdp=8"),
        ("dp=2 fsdp=3 cp=5", Mesh(dp=2, fsdp=3, cp=5), "dp=2,fsdp=3,cp=5"),
        ("tp=1", Mesh(), "dp=1"),
        ("", Mesh(), "dp=1"),
    ],
)
def test_a_mesh_is_read_and_written(text: str, mesh: Mesh, canonical: str) -> None:
    assert Mesh.parse(text) == mesh
    assert str(mesh) == canonical
    assert Mesh.parse(canonical) == mesh


def test_size_axes_and_shares_of_the_batch() -> None:
    mesh = Mesh(pp=2, dp=3, fsdp=5, tp=7)
    assert (mesh.size, mesh.axes, mesh.data) == (210, ("pp", "dp", "fsdp", "tp"), 15)
    assert (Mesh().size, Mesh().axes) == (1, ())


def test_the_last_axis_varies_fastest() -> None:
    mesh = Mesh(pp=2, fsdp=3, tp=2)
    places = [(p["pp"], p["fsdp"], p["tp"]) for p in map(mesh.place, range(12))]
    assert places == [(p, f, t) for p in range(2) for f in range(3) for t in range(2)]
    assert mesh.place(7) == {"pp": 1, "dp": 0, "fsdp": 0, "cp": 0, "tp": 1}
    with pytest.raises(UserError, match=r"^mesh pp=2,fsdp=3,tp=2 has ranks 0 to 11, not 12$"):
        mesh.place(12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pd=2", "mesh 'pd=2': there is no axis 'pd'; the axes are pp, dp, fsdp, cp, tp"),
        ("fdsp=2", "mesh 'fdsp=2': there is no axis 'fdsp'; did you mean 'fsdp'?"),
        ("tensor=2", "mesh 'tensor=2': there is no axis 'tensor'; did you mean 'tp'?"),
        ("ep=2", "mesh 'ep=2': there is no axis 'ep': tp splits experts as it does heads"),
        ("zzzz=2", "mesh 'zzzz=2': there is no axis 'zzzz'; the axes are pp, dp, fsdp, cp, tp"),
        ("tp=2,tp=4", "mesh 'tp=2,tp=4': tp is said twice"),
        ("tp", "mesh 'tp': tp needs a number of ranks, as in tp=2"),
        ("tp=two", "mesh 'tp=two': tp needs a number of ranks, as in tp=2"),
        ("tp=0", "mesh 'tp=0': tp needs a number of ranks, as in tp=2"),
        ("tp=-2", "mesh 'tp=-2': tp needs a number of ranks, as in tp=2"),
        ("8", "mesh '8': there is no axis '8'; the axes are pp, dp, fsdp, cp, tp"),
    ],
)
def test_what_is_no_mesh(text: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        Mesh.parse(text)
    assert str(raised.value) == message


def test_a_size_is_a_whole_number_of_at_least_one() -> None:
    with pytest.raises(UserError, match=r"^mesh axis tp must be a whole number of at least 1, not 0$"):
        Mesh(tp=0)
