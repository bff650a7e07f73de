"""What a read may say: which of a label's places it reads, and how what it finds joins the stream.

`^u` names the place that the stream has reached, `<u(pop, gain, init=0.5)` reads it. Drawings, costs and the module
of a read know of ways to join by this table alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

WHICH = {
    "latest": "the one written last (default)",
    "pop": "the one written last, which later reads do not find",
    "first": "the one written first",
    "all": "all of them",
}
"""Words for which of the places that a label names is read; a number is one of them, counted from 0."""


@dataclass(frozen=True)
class Join:
    """A way for earlier values u_1, ..., u_n of the stream to join its present value x.

    Attributes:
        name: as written, `<u(gain)`.
        formula: what the stream becomes, with one value in it.
        doc: what it does, and its source.
        words: the same in a few, of a drawing.
        shapes: features of the stream, number of values -> the shape of each parameter, by name.
        products: features, number of values -> multiply-adds for one token in matrix products.
        saved: features, number of values -> numbers saved of a token for the backward pass, beside those of `keeps`.
        keeps: what else is saved, "stream", x, or "read", the values; what several save is there once.
        init: what `init=` is when it is not given; None: it takes none.
        replaces: the result takes the stream's place; as a branch it adds the difference.
    """

    name: str
    formula: str
    doc: str
    words: str
    shapes: Callable[[int, int], Mapping[str, tuple[int, ...]]] = lambda dim, n: {}
    products: Callable[[int, int], int] = lambda dim, n: 0
    saved: Callable[[int, int], int] = lambda dim, n: 0
    keeps: tuple[str, ...] = ()
    init: float | None = None
    replaces: bool = False


JOINS = {
    join.name: join
    for join in (
        Join("add", "x + u", "they are added to the stream (default)", "added"),
        Join(
            "gain",
            "x + g·u",
            "they are added, each times a learned number that is init at first (DenseFormer, arXiv:2402.02622)",
            "added with a learned gain",
            lambda dim, n: {"gain": (n,)},
            keeps=("read",),
            init=0.0,
        ),
        Join(
            "gate",
            "x + σ(w·x + b)·u",
            "they are added, each times a number between 0 and 1 that a linear layer makes of each token; "
            "its bias is init at first",
            "added with a learned gate",
            lambda dim, n: {"gate.weight": (n, dim), "gate.bias": (n,)},
            lambda dim, n: n * dim,
            lambda dim, n: n,
            keeps=("stream", "read"),
            init=0.0,
        ),
        Join(
            "cat",
            "W[u, x]",
            "a linear layer reads them with the stream beside them and makes the new stream (U-ViT, arXiv:2209.12152)",
            "a linear layer over both, in the stream's place",
            lambda dim, n: {"combine.weight": (dim, (n + 1) * dim)},
            lambda dim, n: (n + 1) * dim * dim,
            lambda dim, n: (n + 1) * dim,
            replaces=True,
        ),
        Join(
            "linear",
            "W·x + u",
            "a linear layer reads the stream, and they are added to what it makes (Zamba, arXiv:2405.16712)",
            "added to a linear layer of the stream, in its place",
            lambda dim, n: {"linear.weight": (dim, dim)},
            lambda dim, n: dim * dim,
            keeps=("stream",),
            replaces=True,
        ),
        Join(
            "soft",
            "softmax(w)·u",
            "their weighted mean, of learned weights that are at first alike, is the new stream (arXiv:2502.09245)",
            "their weighted mean, in the stream's place",
            lambda dim, n: {"logits": (n,)},
            keeps=("read",),
            replaces=True,
        ),
        Join(
            "route",
            "softmax(W·norm(x))·u",
            "their weighted mean is the new stream, by weights that a linear layer makes of each token, normed; "
            "they are at first alike (LIMe, arXiv:2502.09245)",
            "their weighted mean by token, in the stream's place",
            lambda dim, n: {"norm.weight": (dim,), "route.weight": (n, dim), "route.bias": (n,)},
            lambda dim, n: n * dim,
            lambda dim, n: 1 + dim + n,
            keeps=("stream", "read"),
            replaces=True,
        ),
    )
}
"""Ways to join, by name."""
