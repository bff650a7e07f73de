"""This process among all: the device mesh, its place in it, and sums over all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from blockdsl.errors import UserError
from blockdsl.plan.mesh import AXES, Mesh

from ..runtime.devices import device_of

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Ranks:
    """The ranks of a mesh, and which of them this process is.

    Attributes:
        mesh: how many ranks stand along each axis.
        devices: the same as torch has it, with all five axes.
        place: this rank's index along each axis.
        device: where its tensors are.
        sharding: over which ranks parameters are sharded, in copies or not: those along fsdp and cp. None: each rank
            has its own wholly.

    Raises:
        UserError: there is no process group, or it has not as many ranks as the mesh; or there is no such device.
    """

    def __init__(self, mesh: Mesh, device: torch.device | str = "cpu") -> None:
        self.device = device_of(device)
        there = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 0
        if there != mesh.size:
            start = f"torchrun --nproc-per-node {mesh.size} ... starts as many"
            have = "there is no process group" if not there else f"there are {there} processes"
            have = "there is one process" if there == 1 else have
            ranks = f"{mesh.size} rank{'s' * (mesh.size > 1)}"
            raise UserError(f"the mesh {mesh} has {ranks}, but {have}; {start}")
        self.mesh, self.rank = mesh, dist.get_rank()
        self.place = mesh.place(self.rank)
        sizes = tuple(getattr(mesh, axis) for axis in AXES)
        self.devices: DeviceMesh = init_device_mesh(self.device.type, sizes, mesh_dim_names=tuple(AXES))
        self.sharding = self._sharding()

    @property
    def main(self) -> bool:
        """Whether this is the process that prints and writes what is written once."""
        return self.rank == 0

    @property
    def data(self) -> int:
        """Which share of the batch's rows it has."""
        return self.place["dp"] * self.mesh.fsdp + self.place["fsdp"]

    def _sharding(self) -> DeviceMesh | None:
        mesh = self.mesh
        if mesh.data * mesh.cp == 1:
            return None
        devices, shards = self.devices, "fsdp"
        if mesh.cp > 1:
            sizes, shards = (mesh.pp, mesh.dp, mesh.fsdp * mesh.cp, mesh.tp), "fsdp_cp"
            devices = init_device_mesh(self.device.type, sizes, mesh_dim_names=("pp", "dp", shards, "tp"))
        return devices[shards] if mesh.dp == 1 else devices["dp", shards]

    def group(self, axis: str) -> ProcessGroup:
        """The ranks along an axis that this one stands in line with."""
        return self.devices.get_group(axis)

    def rows(self, count: int) -> slice:
        """Which of so many rows of a batch it takes; none, where there are fewer than shares."""
        share, rest = divmod(count, self.mesh.data)
        start = self.data * share + min(self.data, rest)
        return slice(start, start + share + (self.data < rest))

    def tokens(self, count: int) -> slice:
        """Which of so many tokens of a row it runs.

        Raises:
            UserError: the ranks along cp cannot all have as many.
        """
        share, rest = divmod(count, self.mesh.cp)
        if rest:
            raise UserError(f"rows of {count} tokens cannot be cut into {self.mesh.cp} parts alike (cp of {self.mesh})")
        start = self.place["cp"] * share
        return slice(start, start + share)

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sum of each number over all ranks, in float64."""
        numbers = torch.tensor(values, device=self.device, dtype=torch.float64)
        dist.all_reduce(numbers)
        return [float(number) for number in numbers]

    def total(self, counts: Tensor) -> Tensor:
        """The sum of a tensor over the ranks that have tokens of a batch, without a gradient."""
        out = counts.detach().clone()
        for axis in ("dp", "fsdp", "cp"):
            if getattr(self.mesh, axis) > 1:
                dist.all_reduce(out, group=self.group(axis))
        return out

    def once(self, axes: Sequence[str]) -> bool:
        """Whether this rank is the first along these axes: of what all of them hold alike, it counts."""
        return all(self.place[axis] == 0 for axis in axes)
