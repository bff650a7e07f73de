"""Several processes with a gloo group on loopback, for tests of what runs over ranks.

    def of_a_rank(numbers):                     # a function of a module, run in each process
        return dist.get_rank() + sum(numbers)

    assert run(of_a_rank, 2, [1, 2]) == [3, 4]

They are forked from a process that has imported torch and the product, which takes seconds, and stay; each `run` makes
a group of its own. A rank that raises fails the test with its traceback; where one hangs, all end after `TIMEOUT`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import multiprocessing
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest

TIMEOUT = 240.0
"""Seconds that a run may take on a machine that is busy with other things."""

ROOT = Path(__file__).parents[2]
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["torch", "xt_blocks.train.mesh", "torch._dynamo"])
_workers: list[tuple[Any, Connection]] = []


class RankFailed(AssertionError):
    """A rank raised, or none answered in time."""


def run(function: Callable[..., Any], processes: int, *arguments: Any, backend: str = "gloo") -> list[Any]:
    """What `function(*arguments)` returns on each of so many ranks, in a process group.

    Args:
        backend: of the group.

    Raises:
        RankFailed: one of them raised; the message has its traceback.
    """
    while len(_workers) < processes:
        _workers.append(_started())
    with tempfile.TemporaryDirectory() as folder:
        for rank, (_, pipe) in enumerate(_workers[:processes]):
            place = (rank, processes, str(Path(folder, "store")), backend)
            pipe.send((function.__module__, function.__qualname__, arguments, place))
        answers = _answers([pipe for _, pipe in _workers[:processes]])
    failed = [f"rank {rank}:\n{answer}" for rank, (fine, answer) in enumerate(answers) if not fine]
    if failed:
        stop()  # the others may wait for it
        raise RankFailed("\n".join(failed))
    return [answer for _, answer in answers]


def _answers(pipes: list[Connection]) -> list[tuple[bool, Any]]:
    """Each rank's answer; after one that failed, the others have a few seconds to say more."""
    out: list[tuple[bool, Any]] = [(False, "no answer in time")] * len(pipes)
    left, seconds = dict(zip(pipes, range(len(pipes)), strict=True)), TIMEOUT
    while left:
        ready = wait(list(left), seconds)
        if not ready:
            break
        for pipe in ready:
            rank = left.pop(pipe)  # type: ignore[arg-type]
            try:
                out[rank] = pipe.recv()  # type: ignore[union-attr]
            except EOFError:
                out[rank] = False, "the process ended"
            if not out[rank][0]:
                seconds = 5.0
    return out


def _started() -> tuple[Any, Connection]:
    here, there = _SERVER.Pipe()
    with pytest.MonkeyPatch.context() as patch:  # for the server, which the first process starts
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        process = _SERVER.Process(target=_serve, args=(there, str(ROOT)), daemon=True)
        process.start()
    return process, here


@atexit.register
def stop() -> None:
    """End all processes."""
    for process, _ in _workers:
        process.kill()
    _workers.clear()


def _serve(pipe: Connection, root: str) -> None:
    """A rank's process: runs what it is sent until the pipe closes."""
    if root not in sys.path:
        sys.path.insert(0, root)
    import torch
    import torch.distributed as dist
    from torch.distributed.tensor.debug import _clear_sharding_prop_cache

    torch.set_num_threads(1)
    while True:
        try:
            module, name, arguments, (rank, processes, store, backend) = pipe.recv()
        except EOFError:
            return
        try:
            function = getattr(importlib.import_module(module), name)
            torch.manual_seed(0)
            store = torch.distributed.FileStore(store, processes)
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=processes, timeout=timedelta(seconds=TIMEOUT)
            )
            dist.barrier()  # one that refuses at once would close connections that another still makes
            try:
                answer = True, function(*arguments)
            finally:
                dist.destroy_process_group()
                _clear_sharding_prop_cache()  # torch would give tensors of the next call meshes of this one's groups
                gc.collect()  # what is in cycles keeps groups, and their threads wake a hundred times a second
        except Exception:
            answer = False, traceback.format_exc()
        pipe.send(answer)
