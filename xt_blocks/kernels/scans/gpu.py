"""GPU kernels of other libraries for scans and the convolution, taken where they are installed. No dependency.

flash-linear-attention has the delta rule and gated linear attention, which Mamba-2's scan is as well; causal-conv1d has
the convolution. They take half precision only: in float32 they round matrix products to fewer bits than we do.
mamba-ssm is not used: its selective scan takes no state to go on from.

`ENABLED = False` turns both off.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import compat

ENABLED = True
_HALF = torch.bfloat16, torch.float16


class ScanRequest(NamedTuple):
    """A delta rule, or with `beta=None` gated linear attention.

    Attributes:
        q, k: (batch, heads, seq, d); of fewer heads, each of which serves as many of the others.
        v: (batch, heads, seq, e)
        g: log decays, (batch, heads, seq, 1) by head or (batch, heads, seq, d) by channel.
        beta: (batch, heads, seq)
        state: (batch, heads, d, e) before the first token; None: zeros.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    beta: Tensor | None = None
    state: Tensor | None = None

    def kernel(self) -> tuple[str, str]:
        """Its module and its name."""
        if self.g.shape[-1] == 1:
            delta, linear = ("gated_delta_rule", "chunk_gated_delta_rule"), ("simple_gla", "chunk_simple_gla")
        else:
            delta, linear = ("kda", "chunk_kda"), ("gla", "chunk_gla")
        module, name = linear if self.beta is None else delta
        return f"fla.ops.{module}", name


CONVOLUTION = "causal_conv1d", "causal_conv1d_fn"


@cache
def found(module: str, name: str) -> Callable[..., Any] | None:
    """The function, looked up once; None: it is not there, or its library does not load."""
    try:
        function: Callable[..., Any] | None = getattr(importlib.import_module(module), name, None)
    except Exception:  # without a driver, Triton raises errors of its own
        return None
    return function


def refuses(scan: ScanRequest) -> str | None:
    """Why the scan is computed by ours; None: it is not."""
    return (
        _refuses(scan.v, *scan.kernel())
        or ("a single token is the recurrence itself" if scan.q.shape[2] <= 1 else None)
        or ("keys of more than 256 features" if scan.q.shape[-1] > 256 else None)
    )


def run(scan: ScanRequest) -> tuple[Tensor, Tensor]:
    """(batch, heads, seq, e), and the state after the last token, in float32."""
    function, dtype = found(*scan.kernel()), scan.v.dtype
    assert function is not None
    g = scan.g[..., 0] if scan.g.shape[-1] == 1 else scan.g
    share = scan.v.shape[1] // scan.q.shape[1]
    q, k = (x.to(dtype).repeat_interleave(share, dim=1) if share > 1 else x.to(dtype) for x in (scan.q, scan.k))
    given = {"q": q, "k": k, "v": scan.v, "g": g.float()}
    if scan.beta is not None:
        given["beta"] = scan.beta.to(dtype)
    tokens = {name: x.transpose(1, 2).contiguous() for name, x in given.items()}  # their heads are after the tokens
    before = None if scan.state is None else scan.state.float().contiguous()
    with torch.autocast(scan.v.device.type, enabled=False):
        out, state = function(**tokens, scale=1.0, initial_state=before, output_final_state=True)
    return out.transpose(1, 2), state


def refuses_convolution(x: Tensor, weight: Tensor) -> str | None:
    """Why the convolution of `x: (batch, seq, features)` is computed by torch; None: it is not."""
    if reason := _refuses(x, *CONVOLUTION):
        return reason
    if not 2 <= weight.shape[-1] <= 4 or x.shape[-1] % 8:
        return "a kernel of other than 2 to 4 tokens, or features that are no multiple of 8"
    return "weights of another type" if weight.dtype != x.dtype else None


def convolve(x: Tensor, tail: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x: (batch, seq, features)` after `tail: (batch, kernel - 1, features)` → the shape of x."""
    function = found(*CONVOLUTION)
    assert function is not None
    rows, before = (t.contiguous().transpose(1, 2) for t in (x, tail))  # their features are before the tokens
    out: Tensor = function(x=rows, weight=weight[:, 0], bias=bias, initial_states=before)
    return out.transpose(1, 2)


def why(scan: ScanRequest) -> str:
    """Which kernel is taken, and why not the other."""
    name = ".".join(scan.kernel())
    reason = refuses(scan)
    return f"{name} is taken" if reason is None else f"ours is taken\n  {name}: {reason}"


def _refuses(x: Tensor, module: str, name: str) -> str | None:
    if not x.is_cuda:
        return f"tensors on {x.device.type}"
    if not ENABLED:
        return "it is turned off"
    if x.dtype not in _HALF:
        return f"{str(x.dtype).removeprefix('torch.')} is computed exactly by ours"
    if torch.compiler.is_compiling() or compat.transforms_active() or compat.modes_active():
        return "something follows each operation"
    return None if found(module, name) is not None else f"{module} is not installed, or does not load"
