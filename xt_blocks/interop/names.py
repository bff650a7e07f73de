"""The names in a state dict: what may be given, what wrappers put before a name, and which release has such names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from typing import Any

from torch import Tensor, nn

from blockdsl.errors import UserError

Release = tuple[int, int]
"""Major and minor version."""

LAST_OF_1, FIRST_OF_2, NEWEST = (1, 14), (1, 32), (2, 31)
"""What is called 1.x has the final norm in the wrapper, and what is called 2.x stores gains less one. The releases in
between changed one of these at a time."""

# What torch.compile, data parallelism, sharding and activation checkpointing put into names, wherever they are used.
_WRAPPED = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# What x-transformers itself puts around a shifted or scaled layer.
_AROUND_LAYER = re.compile(r"(layers\.\d+\.1)(?:\.fn)+\.")


def tensors(given: Any) -> dict[str, Tensor]:
    """A state dict's tensors by their plain names.

    Raises:
        TypeError: it is no state dict.
        UserError: it is a whole checkpoint, or two names are one without their wrappers.
    """
    wanted = "state_dict must have the tensors of the x-transformers model by name"
    if isinstance(given, nn.Module):
        raise TypeError(f"{wanted}; a model was given: give its model.state_dict()")
    if isinstance(given, str | PathLike):
        raise TypeError(f"{wanted}; a path was given: give torch.load({str(given)!r}, weights_only=True)")
    if not isinstance(given, Mapping):
        raise TypeError(f"{wanted}, not a {type(given).__name__}")
    if within := [key for key, value in given.items() if _is_state(value)]:
        every = ", ".join(map(repr, given))
        choice = " or ".join(f"checkpoint[{key!r}]" for key in within)
        raise UserError(f"this is a whole checkpoint, with {every}: give the weights in it, {choice}")
    out: dict[str, Tensor] = {}
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise TypeError(f"{wanted}; {name!r} is a {type(value).__name__}, not a tensor")
        plain = _AROUND_LAYER.sub(r"\1.", _WRAPPED.sub("", name))
        if plain in out:
            raise UserError(f"two of the names are {plain} without what wrappers put before it; {name} is one of them")
        out[plain] = value
    return out


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(inner, Tensor) for inner in value.values())


def below(state: Mapping[str, Tensor], root: str, net: str) -> dict[str, Tensor]:
    """The state dict with the names that a model reads, where it is that of a wrapper around it or of its net.

    Args:
        root: what one of the model's names is, or starts with.
        net: where the model has a net inside, "net."; else "".

    Raises:
        UserError: its names are all below others; the message has them.
    """
    prefixes = {match[1] for name in state if (match := re.match(rf"((?:.*?\.)?){re.escape(root)}", name))}
    if not prefixes and net and any(name.startswith(root.removeprefix(net)) for name in state):
        return {net + name: value for name, value in state.items()}
    if not prefixes or "" in prefixes:
        return dict(state)
    if prefixes == {"net."} and all(name.startswith("net.") for name in state):
        return {name.removeprefix("net."): value for name, value in state.items()}
    first, *others = sorted(prefixes)
    also = f" (there is {', '.join(map(repr, others))} too)" if others else ""
    taken = f"{{name.removeprefix({first!r}): tensor for name, tensor in state.items() if name.startswith({first!r})}}"
    raise UserError(f"the weights of this model are below {first!r}{also}: give {taken}")


def version_of(release: object) -> Release:
    """A release as a caller gives it: 1 or 2 for the last that reads so, or a version such as "2.11.0".

    Raises:
        UserError: it is no release, or one that is not read.
    """
    if release in (1, 2) and not isinstance(release, bool):
        return LAST_OF_1 if release == 1 else NEWEST
    match = re.fullmatch(r"(1|2)\.(\d+)(\..*)?", release) if isinstance(release, str) else None
    if match is None:
        raise UserError(f"release must be 1 or 2, not {release!r}; or a version, such as '2.11.0'")
    version = int(match[1]), int(match[2])
    if LAST_OF_1 < version < FIRST_OF_2:
        raise _between()
    return version


def release_of(state: Mapping[str, Tensor]) -> Release:
    """Which release has these names: the last that does.

    Raises:
        UserError: they do not say, or are of one that is not read.
    """

    def has(pattern: str) -> bool:
        return any(re.search(pattern, name) for name in state)

    last = max((int(match[1]) for name in state if (match := re.search(r"layers\.(\d+)\.\d\.", name))), default=0)
    if has(r"^((net|encoder|decoder|token_critic)\.)*norm\.(weight|bias)$|\.1\.to_r\.|learned_logslopes$"):
        return LAST_OF_1
    # every stack of 1.15 or later has a norm at its end, LayerNorms with a weight or a bias until 1.30
    if has(rf"\.beta$|(^|\.)final_norm\.(weight|bias)$|layers\.{last}\.0\.2\.(weight|bias)$"):
        raise _between()
    if has(r"gamma$|\.to_gamma\.|head_attn_sink$"):
        return NEWEST
    if has(rf"(^|\.)final_norm\.|layers\.{last}\.0\.2\.g$"):
        if (has(r"\.ff\.3\.") and not has(r"\.ff\.1\.")) or has(r"(^|\.)to_logits\.bias$"):
            raise _between()
        return NEWEST
    if has(r"layers\.\d+\.0\.\d\.(weight|bias|g)$|\.ff\.3\."):
        return LAST_OF_1
    if has(r"\.ff\.2\.|\.1\.attend\."):
        return NEWEST
    raise UserError("these names do not say which release of x-transformers they are of: give release=1 or release=2")


def gains_around_one(state: Mapping[str, Tensor]) -> bool:
    """Whether gains of RMSNorms or ScaleNorms, whose names never changed, look as if they were not stored less one."""
    gains = [tensor.float().mean() for name, tensor in state.items() if re.search(r"layers\.\d+\.0\.\d\.g$", name)]
    return bool(gains) and bool(sum(gains) > len(gains) / 2)


def _between() -> UserError:
    return UserError(
        "these weights are of a release of x-transformers from 1.15 to 1.31, which is not read; if they are of "
        "another, give release=, such as release='2.11.0'"
    )
