"""A run under torchrun: the process group, what the first rank does for all, and which rank gives no answer.

Owns how processes start and end. Leaves what they compute to `mesh`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist

from blockdsl.errors import UserError
from blockdsl.plan.mesh import Mesh

from .answers import no_answer
from .settings import TrainSettings, check_device

if TYPE_CHECKING:
    from blockdsl import BlockGraph

    from .mesh import MeshEngine

T = TypeVar("T")

TIMEOUT = 600.0
"""Seconds that ranks wait for one that does not come, unless --timeout says otherwise."""

PATIENCE = 5.0
"""Seconds in which ranks that wait for the same one fail one after another."""
GRACE = 3.0
"""Seconds that the first rank has to say what is wrong, as the others have most likely found the same."""


class Silent(Exception):
    """This process failed, and another says why."""


class Launch:
    """The processes that torchrun has started for a run, seen from one of them.

    Attributes:
        mesh: as many ranks as there are processes.
        rank: this one's; 0 prints, and writes what is written once.
        store: what they tell each other, of this start alone.
        again: torchrun has started some rank again, after one had failed.
    """

    def __init__(self, mesh: Mesh) -> None:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self.mesh, self.rank = mesh, int(os.environ["RANK"])
        hosts = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and self.rank == 0  # else torchrun does
        store = torch.distributed.TCPStore(address, port, mesh.size, is_master=hosts)  # type: ignore[attr-defined]
        one_machine = os.environ.get("LOCAL_WORLD_SIZE", str(mesh.size)) == str(mesh.size)
        start = str(_starts()) if one_machine else _agreed_start(store, self.rank, mesh.size)
        self.store = torch.distributed.PrefixStore(f"start {start}", store)  # type: ignore[attr-defined]
        self.again = False

    @property
    def main(self) -> bool:
        return self.rank == 0

    def engine(self, graph: BlockGraph, settings: TrainSettings, schedule: str = "1f1b") -> MeshEngine:
        """This rank's part of a run."""
        from .mesh import MeshEngine  # loads much of torch that one process does not need

        return MeshEngine(graph, settings, self.mesh, schedule)

    def first(self, function: Callable[[], T]) -> T:
        """What the function returns on the first rank, which alone calls it, on all ranks.

        Raises:
            UserError: on all ranks, where it was raised on the first.
        """
        found: list[Any] = [None, None]
        if self.main:
            try:
                found[0] = function()
            except UserError as error:
                found[1] = str(error)
        dist.broadcast_object_list(found, src=0)
        if found[1] is not None:
            raise UserError(found[1])
        result: T = found[0]
        return result

    def told(self, error: Exception, seconds: float) -> Exception:
        """The error as this rank has to say it; Silent, if another does: one says why a run fails, the first if it can.

        Args:
            seconds: that ranks waited for one that does not come.
        """
        if no_answer(error):
            why = f"{self.silent()} gave no answer (at most {seconds:g} s are waited for): it hangs, or has ended"
            error = UserError(f"rank {self.rank}: {why}")
        elif not self.main:
            self._wait_for(["said"], GRACE)
            if isinstance(error, UserError | OSError):
                error = UserError(f"rank {self.rank}: {error}")
        try:
            speaks = self.store.add("said", 1) == 1
        except RuntimeError:  # the one that kept it has ended
            return error
        if not speaks:
            time.sleep(1.0)  # torchrun ends all ranks when one has ended
        return error if speaks else Silent()

    def _wait_for(self, names: list[str], seconds: float) -> list[str]:
        """Those that no rank has told in time; none, when one has said what is wrong."""
        ends = time.monotonic() + seconds
        while names and time.monotonic() < ends and not self.store.check(["said"]):
            names = [name for name in names if not self.store.check([name])]
            time.sleep(0.05)
        return [] if self.store.check(["said"]) else names

    def silent(self) -> str:
        """Which ranks have not failed as this one and the others have, in words: those that hang, or have ended."""
        names = {f"rank {rank} waits no longer": str(rank) for rank in range(self.mesh.size)}
        self.store.set(f"rank {self.rank} waits no longer", "")
        ranks = [names[each] for each in self._wait_for([*names], PATIENCE)]
        return f"rank{'s' * (len(ranks) > 1)} {', '.join(ranks)}" if ranks else "a rank"


def started_again(ranks: Launch | None) -> bool:
    """Whether torchrun has started the run's processes again, after one had failed."""
    return _starts() > 0 if ranks is None else ranks.again


def _agreed_start(store: Any, rank: int, size: int) -> str:
    """A name of this start that all ranks agree on, as torchrun counts starts on each machine by itself.

    The first rank lists what it finds of all, until each has seen itself there: before that it may find what a rank of
    an earlier start had said.
    """
    mine = uuid4().hex
    store.set(f"name of {rank}", mine)
    names: list[str] = []
    while True:
        if rank == 0:
            if (found := [store.get(f"name of {each}").decode() for each in range(size)]) != names:
                names = found
                store.set("names", " ".join(names))
            if all(store.check([f"{mine} has {name}"]) for name in names[1:]):
                store.set(f"{mine} goes", "")
                return mine
        else:
            names = store.get("names").decode().split()
            if names[rank] == mine:
                store.set(f"{names[0]} has {mine}", "")
                if store.check([f"{names[0]} goes"]):
                    return names[0]
        time.sleep(0.1)


def _starts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def process_group(command: str, mesh: str | None, device: str, seconds: float | None = None) -> Iterator[Launch | None]:
    """Within it, under torchrun, a process group; only the first rank prints. None: this is the only process.

    Args:
        command: that was given, as a user would write it.
        mesh: its text; None: all ranks that there are along fsdp.
        seconds: that ranks wait for one that does not come.

    Raises:
        UserError: the mesh has another number of ranks than were started; or, later, a rank did not come.
    """
    there = int(os.environ.get("WORLD_SIZE", "1"))
    try:
        wanted = _checked(command, mesh, device, seconds, there)
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":
            raise
        time.sleep(GRACE)  # torchrun ends all ranks when one has ended, and the first has to say it
        raise Silent from error
    if there == 1:
        yield None
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    seconds = TIMEOUT if seconds is None else seconds
    launch = Launch(wanted)
    dist.init_process_group(
        backend, store=launch.store, rank=launch.rank, world_size=there, timeout=timedelta(seconds=seconds)
    )
    with _quiet(not launch.main):
        try:
            starts: list[Any] = [None] * there
            dist.all_gather_object(starts, _starts())
            launch.again = any(starts)
            yield launch
        except Exception as error:
            raise launch.told(error, seconds) from error
        finally:
            dist.destroy_process_group()


def _checked(command: str, mesh: str | None, device: str, seconds: float | None, there: int) -> Mesh:
    wanted = Mesh(fsdp=there) if mesh is None else Mesh.parse(mesh)
    if wanted.size != there:
        started = "this is one process" if there == 1 else f"torchrun started {there}"
        start = f"torchrun --nproc-per-node {wanted.size} -m blockdsl {command} --mesh {wanted} ..."
        ranks = f"{wanted.size} rank{'s' * (wanted.size > 1)}"
        raise UserError(f"--mesh {wanted} has {ranks}, and {started}; start them with\n  {start}")
    if seconds is not None and not seconds > 0:
        raise UserError(f"--timeout must be more than 0 seconds, not {seconds:g}")
    if there > 1:
        check_device(device)
    return wanted


@contextmanager
def _quiet(silent: bool) -> Iterator[None]:
    if not silent:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield
