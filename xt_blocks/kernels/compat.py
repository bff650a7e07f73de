"""The names of torch that are private, or that not every torch in the promised range has.

Each is looked up here and nowhere else. Where a torch lacks one, its fallback is public: slower perhaps, never wrong. A
question that such a torch cannot answer ("is a dispatch mode active?") gets the answer that leads to the plain path.
How the names are used is documented where they are used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad  # `torch.autograd` alone need not have imported it
from torch.optim import optimizer

T = TypeVar("T")

LOOKED_UP: dict[str, bool] = {}
"""Each name that was looked up, such as `_C._is_tracing`, and whether this torch has it."""


def _look_up(name: str, fallback: Any = None, owner: Any = torch) -> Any:
    """The object of this dotted name in torch or another owner; the fallback if it is missing."""
    found = owner
    for part in name.split("."):
        found = getattr(found, part, None)
        if found is None:
            break
    LOOKED_UP[name] = found is not None
    return fallback if found is None else found


def _yes() -> bool:
    return True


# Does anything observe or change each operation?

is_tracing: Callable[[], bool] = _look_up("_C._is_tracing", torch.jit.is_tracing)  # type: ignore[attr-defined]
"""Whether torch.jit records the operations."""

onednn_enabled: Callable[[], bool] = _look_up("_C._get_mkldnn_enabled", lambda: bool(torch.backends.mkldnn.enabled))
"""What `torch.backends.mkldnn.flags` sets."""

_dispatch_modes: Callable[[], int] = _look_up("_C._len_torch_dispatch_stack", _yes)
_function_modes: Callable[[], bool] = _look_up("_C._is_torch_function_mode_enabled", _yes)
_functorch: Callable[[], bool] = _look_up("_C._are_functorch_transforms_active", _yes)
_HAS_LEVEL: bool = _look_up("_current_level", owner=forward_ad) is not None


def modes_active() -> bool:
    """Whether a mode sees each operation: a FLOP counter, fake tensors, a default device."""
    return bool(_dispatch_modes()) or _function_modes()


def transforms_active() -> bool:
    """Whether torch.func transforms, forward-mode derivatives or torch.jit tracing follow the operations."""
    return _functorch() or not _HAS_LEVEL or forward_ad._current_level >= 0 or is_tracing()


def exporting() -> bool:
    """Whether torch.export makes a graph; torch 2.7, whose answer in any graph is yes, is taken to compile."""
    return _SAYS_EXPORTING and torch.compiler.is_exporting()


_SAYS_EXPORTING: bool = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 8)


# Does anything change a module's call, or a weight?

_HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
_HAS_HOOKS: bool = None not in [_look_up(name, owner=nn.Module()) for name in _HOOKS]
_GLOBAL_HOOKS: list[Any] = [_look_up("_global" + name, [True], owner=nn.modules.module) for name in _HOOKS]


def hooked(module: nn.Module, allowed: tuple[str, ...] = ()) -> bool:
    """Whether a hook on the module, or a global one, sees or changes the inputs or outputs of its call.

    Args:
        allowed: hooks defined in packages of these names, such as "torch.distributed.", do not count.
    """
    if not _HAS_HOOKS or any(_GLOBAL_HOOKS):
        return True
    own = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    if not any(own):
        return False
    found = [hook for hooks in own for hook in [*hooks.values()]]  # another thread may add one
    return any(not (allowed and getattr(hook, "__module__", "").startswith(allowed)) for hook in found)


def own_weights(module: nn.Module) -> Iterable[Tensor | None]:
    """Its own parameters, not those of its children."""
    return module._parameters.values() if _HAS_PARAMETERS else module.parameters(recurse=False)


_HAS_PARAMETERS: bool = _look_up("_parameters", owner=nn.Module()) is not None
_HAS_VERSION: bool = _look_up("_version", owner=torch.empty(0, device="cpu", dtype=torch.float32)) is not None
_after_each_step: Any = _look_up("register_optimizer_step_post_hook", owner=optimizer)

SEES_CHANGES: bool = _HAS_VERSION and _after_each_step is not None
"""Whether `version` and `after_each_step` report changes of a weight. Without them, no copy of a weight can be kept."""


def version(t: Tensor) -> int:
    """How many operations in place have changed the tensor, as torch counts them; 0 if it doesn't."""
    return t._version if _HAS_VERSION else 0


def after_each_step(hook: Callable[..., None]) -> None:
    """Call it after each step of each optimizer. Fused ones change weights past torch's own count."""
    if _after_each_step is not None:
        _after_each_step(hook)


# Kernels

_HAS_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def _onednn(name: str) -> Any:
    found = _look_up(f"ops.mkldnn.{name}")
    return found if _HAS_ONEDNN else None


linear_pointwise: Any = _onednn("_linear_pointwise.default._op")
"""oneDNN's linear layer, `(x, weight, bias, activation, scalars, algorithm)`; None: use `F.linear`."""

_reorder: Any = _onednn("_reorder_linear_weight")
reorder_linear_weight: Any = None if linear_pointwise is None else _reorder
"""A copy of a weight in oneDNN's layout, for `linear_pointwise`; None: keep the weight."""

_bfloat16: Any = _onednn("_is_mkldnn_bf16_supported")
_float16: Any = _onednn("_is_mkldnn_fp16_supported")


def onednn_supports(dtype: torch.dtype) -> bool:
    """Whether this CPU has instructions for the type; every one has them for float32."""
    supports = {torch.bfloat16: _bfloat16, torch.float16: _float16}.get(dtype)
    return dtype == torch.float32 or (supports is not None and bool(supports()))


@cache
def flex_attention() -> Any:
    """The module `torch.nn.attention.flex_attention`, imported at its first use; None: there is none."""
    name = "nn.attention.flex_attention"
    try:
        importlib.import_module(f"torch.{name}")
    except ImportError:
        LOOKED_UP[name] = False
        return None
    return _look_up(name)


def uncompiled(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` was given; this one where it is no result of that."""
    original: nn.Module = getattr(module, "_orig_mod", module)
    return original


def not_compiled(function: T) -> T:
    """The function, marked as `torch.compiler.disable` does, which would import the compiler: it is never compiled."""
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    return function


# Collectives of one tensor

all_gather: Callable[..., Any] = _look_up(
    "distributed.all_gather_single", getattr(torch.distributed, "all_gather_into_tensor", None)
)
"""(output, input, group=) of tensors that are joined along their first axis; newer torches have another name."""

reduce_scatter: Callable[..., Any] = _look_up(
    "distributed.reduce_scatter_single", getattr(torch.distributed, "reduce_scatter_tensor", None)
)
"""The same the other way, and a sum."""


def mark_static_address(t: Tensor) -> None:
    """Tell the compiler that the tensor stays where it is, so that a CUDA graph doesn't copy it at each replay."""
    mark = _look_up("_dynamo.mark_static_address")  # looked up here, for it imports the compiler
    if mark is not None:
        mark(t, guard=False)


def allow_recompiles(times: int) -> None:
    """Let torch's compiler keep code for so many shapes and modules of one function, at least."""
    config = _look_up("_dynamo.config")  # looked up here, for it imports the compiler
    if config is not None:
        config.recompile_limit = max(times, config.recompile_limit)
