"""Parameters, gradients and optimiser state shared by the ranks of the data axes: FSDP2, block by block.

Before a block runs its parameters are gathered, after it they are let go; gradients are summed as they are made
(ZeRO, arXiv:1910.02054; PyTorch FSDP, arXiv:2304.11277). With copies along dp this is HSDP.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from .ranks import Ranks

# A linear layer's output of three axes is a view; nothing here changes a block's output in place.
warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor", category=UserWarning)


def sharded(module: nn.Module, ranks: Ranks, computes_in: torch.dtype | None = None) -> nn.Module:
    """The module with each parameter shared by the ranks, but for single numbers, which each has; what was sharded
    inside it stays as it is.

    Args:
        computes_in: a shorter type, in which parameters are gathered and what the module is given comes to it. Kept
            parameters, sums of gradients and what it gives stay in the type of the parameters. None: that one too.
    """
    if ranks.sharding is None:
        return module
    numbers = {parameter for parameter in module.parameters() if not parameter.ndim}
    kept = next((parameter.dtype for parameter in module.parameters()), None) if computes_in else None
    policy = MixedPrecisionPolicy(param_dtype=computes_in, reduce_dtype=kept, output_dtype=kept)
    fully_shard(module, mesh=ranks.sharding, ignored_params=numbers, mp_policy=policy)
    return module


def average_numbers(parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
    """The mean over the data ranks of the gradients that FSDP leaves alone: those of single numbers."""
    grads = [parameter.grad for parameter in parameters if not parameter.ndim and parameter.grad is not None]
    if ranks.sharding is not None and grads:
        mean = torch.stack(grads) / (ranks.mesh.data * ranks.mesh.cp)
        for axis in ("dp", "fsdp", "cp"):
            dist.all_reduce(mean, group=ranks.group(axis))
        for grad, value in zip(grads, mean, strict=True):
            grad.copy_(value)


def sum_copies(module: nn.Module, whether: bool) -> None:
    """Whether the backward pass to come adds up gradients along dp, with what passes before it have kept; once a step
    is enough. Along fsdp and cp each pass does."""
    if isinstance(module, FSDPModule):
        module.set_requires_all_reduce(whether)


def let_go(module: nn.Module) -> None:
    """Shard again what is still gathered: without a backward pass, FSDP keeps the outermost module's parameters, and an
    optimiser that is made then would train tensors that are thrown away."""
    if isinstance(module, FSDPModule):
        module.reshard()


def local_part(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor, which may be none of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def first_row(tensor: Tensor) -> int:
    """Where this rank's part of a tensor begins along its first axis."""
    if not isinstance(tensor, DTensor):
        return 0
    mesh, placements = tensor.device_mesh, tensor.placements
    (axis,) = [i for i, placement in enumerate(placements) if placement.is_shard()]
    rows, shares = tensor.shape[0], mesh.size(axis)
    return min(rows, mesh.get_local_rank(axis) * -(-rows // shares))
