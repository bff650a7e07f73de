"""Dropout of what a layer gives: the option, and its words in a drawing."""

from __future__ import annotations

from typing import Any

from ..options import Option


def sublayer_dropout(prefix: str) -> Option:
    """Dropout of what a layer gives, for a kind whose settings start so."""
    return Option(
        "sublayer_dropout",
        float,
        0.0,
        "dropout of the layer's output, before the residual add (arXiv:1706.03762)",
        setting=f"{prefix}_sublayer_dropout",
        least=0,
        below=1,
        area="regularisers",
        saved=_what_is_dropped,
    )


def _what_is_dropped(o: Any) -> int:
    """By what each feature of a token is multiplied."""
    return int(o.dim)


def dropout_step(o: Any) -> list[tuple[str, str]]:
    """That of a layer's output, in words."""
    return [(f"dropout {o.sublayer_dropout:g}", "")] if o.sublayer_dropout else []
