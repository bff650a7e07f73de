"""A kill at a chosen call, in this process."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable

import pytest


class Killed(BaseException):
    """Stands for a kill: nothing in the program handles it, so the files stay as they are."""


def killed_at_call(patch: pytest.MonkeyPatch, name: str, calls: int, run: Callable[[], object]) -> None:
    """Run, and die when the function called `name` is called for the `calls`th time, from 0."""
    module, function = name.rsplit(".", 1)
    owner = pkgutil.resolve_name(module)
    original, left = getattr(owner, function), [calls]

    def counted(*arguments: object, **keywords: object) -> object:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return original(*arguments, **keywords)

    with patch.context() as context:
        context.setattr(owner, function, counted)
        with pytest.raises(Killed):
            run()
