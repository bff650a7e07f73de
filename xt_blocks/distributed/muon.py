"""Muon (arXiv:2502.16982) for matrices of which ranks hold parts.

torch.optim.Muon would make an update of each part, or sum bfloat16 products of parts, and neither is the update of the
whole matrix. Here each rank keeps the momentum of its part, and all that share a matrix gather what its update is made
of and compute that alike; the arithmetic is torch's own. Leaves the rest of the parameters to another optimiser.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

if TYPE_CHECKING:
    from .job import Job


class SharedMuon(torch.optim.Optimizer):
    """torch.optim.Muon on any mesh; every rank makes one, and steps at once with the others.

        muon = SharedMuon(job, [p for p in job.parameters() if p.ndim == 2], lr=1e-3)

    Args:
        job: whose parameters these are.
        params: matrices, as torch's optimisers take them.
        lr: learning rate.
        momentum: of the gradients, which counts them as Nesterov's does.
        options: those of torch.optim.Muon, as weight_decay and adjust_lr_fn.
    """

    def __init__(self, job: Job, params: ParamsT, lr: float, momentum: float = 0.95, **options: Any) -> None:
        self.job, self.options = job, options
        self.names = {parameter: name for name, parameter in job.named_parameters()}
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move each matrix that has a gradient; what `closure` is for, a job has no use for."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group["lr"], group["momentum"])

    def _move(self, parameter: nn.Parameter, grad: Tensor, lr: float, momentum: float) -> None:
        name, state = self.names[parameter], self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        mean = state["momentum_buffer"]
        mean.lerp_(grad, 1 - momentum)
        whole = nn.Parameter(torch.zeros(self.job.whole_shapes[name], device=grad.device, dtype=grad.dtype))
        held = self.job.held(name, parameter).rectangles
        for each in held:  # elsewhere what becomes of the matrix is another rank's
            each.of(whole).copy_(each.part)
        whole.grad = self.job.gathered(name, grad.lerp(mean, momentum))
        torch.optim.Muon([whole], lr, momentum=0, nesterov=False, **self.options).step()  # type: ignore[no-untyped-call]
        for each in held:
            each.part.copy_(each.of(whole))
