"""An option of attention that is on or off."""

from __future__ import annotations

from ..options import Option


def switch(
    name: str, doc: str, setting: str | None = None, area: str = "", default: bool = False, scores: str = ""
) -> Option:
    """Its setting is `attn_name`, unless another one is given."""
    return Option(name, bool, default, doc, setting=setting or f"attn_{name}", area=area, scores=scores)
