"""The folder of one run: what is in it and how it comes to be.

    pattern.txt    the pattern, as canonical text
    settings.json  everything the numbers depend on
    graph.json     the block graph the model is lowered from
    metrics.jsonl  the numbers, line by line (`metrics`)
    checkpoints/   000200/ and so on (`checkpoint`)
    loss.png       the loss over the steps (`plot`)
    tokenizer.json of a run on a folder of tokens that are not bytes
    model.safetensors, config.json, generation_config.json: the last checkpoint as `save_pretrained` has it (`export`)
    .begun         while it is made: what is there without settings.json is nobody's, and written again

Owns names, creation and opening. Leaves the contents to the modules named above.
"""

from __future__ import annotations

import time
from pathlib import Path

from blockdsl import BlockGraph
from blockdsl.errors import UserError
from blockdsl.files import leftovers, write_whole

from ..interop.text import Bytes, Pieces, Tokenizer
from .settings import TrainSettings

BEGUN = ".begun"


class RunFolder:
    """A run that exists on the disk. Make one with `create`, find one with `open`."""

    def __init__(self, path: Path, settings: TrainSettings) -> None:
        self.path = path
        self.settings = settings

    def graph(self) -> BlockGraph:
        """The block graph. Raises UserError when the file is gone or is none."""
        file = self.path / "graph.json"
        text = _read(file)
        try:
            return BlockGraph.from_json(text)
        except UserError as error:
            raise UserError(f"{file}: {error}") from None

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer.json"

    def read_tokenizer(self) -> Tokenizer:
        """What its tokens are of a text. Raises UserError when the file, or the package tokenizers, is missing."""
        return Pieces(self.tokenizer, special=False) if self.tokenizer.is_file() else Bytes()

    @property
    def plot(self) -> Path:
        return self.path / "loss.png"

    @classmethod
    def create(cls, path: Path, settings: TrainSettings, graph_json: str, tokenizer: Path | None = None) -> RunFolder:
        """Write a new run's files, with a copy of `tokenizer`. Raises UserError when `check_free` does, or the disk
        refuses."""
        check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / BEGUN).touch()
            (path / "checkpoints").mkdir(exist_ok=True)
            write_whole(path / "pattern.txt", settings.pattern + "\n")
            write_whole(path / "graph.json", graph_json)
            if tokenizer is not None:
                write_whole(path / "tokenizer.json", tokenizer.read_bytes())
            # Last, as its presence makes the folder a run that can be resumed.
            write_whole(path / "settings.json", settings.to_json())
        except OSError as error:
            raise UserError(f"--out {path}: cannot be written ({error.strerror})") from None
        run = cls(path, settings)
        run.tidy()
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Raises UserError when `path` is not a run folder."""
        if not path.exists():
            raise UserError(f"{path}: no such run folder")
        file = path / "settings.json"
        if not file.is_file():
            raise UserError(f"{path}: is not a run folder (it has no settings.json)")
        text = _read(file)
        try:
            settings = TrainSettings.from_json(text)
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: settings.json is not a run's settings ({error})") from None
        return cls(path, settings)

    def update(self, settings: TrainSettings) -> RunFolder:
        """The same with other settings, as when a resumed run is given more steps."""
        write_whole(self.path / "settings.json", settings.to_json())
        return RunFolder(self.path, settings)

    def tidy(self) -> None:
        """Remove what a kill in the middle of a write has left; for the process that trains, as no other one writes."""
        for path in (self.path / BEGUN, *leftovers(self.path)):
            path.unlink(missing_ok=True)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeError:
        raise UserError(f"{file} is not text in UTF-8") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror})") from None


def check_free(path: Path) -> None:
    """Raises UserError unless `path` can become a new run: absent, empty, or a run's that a kill has left half made."""
    if path.exists() and not path.is_dir():
        raise UserError(f"--out {path}: is a file, not a folder")
    run = (path / "settings.json").is_file()
    if path.is_dir() and any(path.iterdir()) and (run or not (path / BEGUN).is_file()):
        advice = f"continue it with --resume {path}, or name another" if run else "name another"
        raise UserError(f"--out {path}: the folder is not empty; {advice}")


def default_path(parent: Path) -> Path:
    """A free name in `parent` made from the time: runs/20250131-142501."""
    name = time.strftime("%Y%m%d-%H%M%S")
    path, count = parent / name, 1
    while path.exists():
        count += 1
        path = parent / f"{name}-{count}"
    return path
