"""A case: contestants that do the same work. The first is the one whose speed the others' is divided by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch

from .contestants.base import Contestant
from .limits import Least
from .measure import timed
from .setting import Setting
from .snippet import Snippet
from .work import Work

Make = Callable[[Setting], Contestant]


@dataclass(frozen=True)
class Goal:
    """What is to be reached against a contestant.

    Attributes:
        faster: ours is at least so many times as fast.
        memory: ours takes at most this part of its memory.
    """

    faster: float | None = None
    memory: float | None = None


@dataclass(frozen=True)
class Options:
    """How the cases are run: the command's arguments."""

    device: str = "cpu"
    threads: int = 1
    quick: bool = False


@dataclass(frozen=True)
class Entry:
    """A contestant ready to be timed.

    Attributes:
        seconds: does the work once and tells how long it took.
        parameters, tokens: of the model, and of the work; None for no model.
        least: what the work cannot do without; None where no graph tells it.
    """

    seconds: Callable[[], float]
    parameters: int | None = None
    tokens: int | None = None
    least: Least | None = None


@dataclass(frozen=True)
class Case:
    """Models at work.

    Attributes:
        name: `group/name`.
        setting: the sizes; a contestant may be made for others.
        goals: by contestant.
        memory: whether memory is measured too, each contestant in a process of its own.
        repeats: how often the work is done in a round; short work is done more often.
    """

    name: str
    title: str
    work: Work
    setting: Setting
    contestants: Mapping[str, Make]
    goals: Mapping[str, Goal] = field(default_factory=dict)
    memory: bool = False
    repeats: int = 1

    @property
    def sizes(self) -> str:
        return f"{self.work.title}, {self.setting}"

    def made(self, contestant: str, options: Options) -> Contestant:
        """
        Raises:
            LeftOut: it does not take part.
        """
        setting = replace(self.setting, device=options.device)
        torch.manual_seed(0)
        return self.contestants[contestant](setting.quick() if options.quick else setting)

    def entry(self, contestant: str, options: Options) -> Entry:
        """
        Raises:
            LeftOut: it does not take part.
        """
        made = self.made(contestant, options)
        return Entry(
            timed(self.work.ready(made, made.setting), options.device, 1 if options.quick else self.repeats),
            made.parameters,
            self.work.tokens(made.setting),
            None if made.graph is None else self.work.least(made.graph, made.setting),
        )

    @property
    def arithmetic(self) -> torch.dtype:
        return self.setting.arithmetic


@dataclass(frozen=True)
class StartCase:
    """Python in fresh processes: imports, and building without running. On the CPU, whatever the device."""

    name: str
    title: str
    contestants: Mapping[str, Snippet]
    goals: Mapping[str, Goal] = field(default_factory=dict)
    memory: bool = False

    @property
    def sizes(self) -> str:
        return "a fresh process each time"

    def entry(self, contestant: str, options: Options) -> Entry:
        """
        Raises:
            LeftOut: it does not take part.
        """
        snippet = self.contestants[contestant]
        snippet.check()
        return Entry(snippet.seconds)

    @property
    def arithmetic(self) -> torch.dtype:
        return torch.float32
