"""The flags of `blockdsl train`: what they are, what a new run takes from them, and what a resumed one may change.

Owns defaults and disagreements. Leaves the training, and what is printed around it, to `train`. Never loads torch for
`--help`.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blockdsl
from blockdsl.errors import UserError
from blockdsl.registry.options import spell

from . import source

if TYPE_CHECKING:
    from ..train import RunFolder, TrainSettings

PATTERN = "set rotary_pos_emb, ff_mult=2, ff_glu; (a>>3 f>>3)*3"
DEFAULTS: dict[str, Any] = {
    "dim": 128,
    "heads": 2,
    "seq_len": 128,
    "batch": 8,
    "steps": 2000,
    "lr": 3e-3,
    "seed": 0,
    "device": "cpu",
    "precision": "fp32",
    "compile": False,
    "accumulate": 1,
    "optimizer": "adamw",
    "val_every": None,
    "patience": None,
}
"""Fields of TrainSettings that a flag of the same name gives."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add them to the command's parser."""
    add = parser.add_argument
    add(
        "--pattern",
        metavar="PATTERN",
        help="the pattern's text; a file (with a dot or a slash in its name); or - for standard input",
    )
    read = parser.add_mutually_exclusive_group()
    read.add_argument("--text", nargs="+", metavar="FILE", help="UTF-8 files to learn (default: Python's library)")
    read.add_argument("--data", metavar="FOLDER", help="tokens to learn, a folder of `blockdsl tokenize`")
    add("--dim", type=int, help="width of the model" + _default("dim"))
    add("--heads", type=int, help="attention heads, of 64 features each" + _default("heads"))
    add(
        "--seq-len",
        type=int,
        metavar="N",
        help="tokens of context in training" + _default("seq_len"),
    )
    add("--batch", type=int, metavar="N", help="sequences per step" + _default("batch"))
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, metavar="N", help="steps in all" + _default("steps"))
    length.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="as many steps as take about M minutes here; timed, and fixed, before the first",
    )
    add("--lr", type=float, help="the highest learning rate" + _default("lr"))
    add("--seed", type=int, help="of weights, batches and dropout" + _default("seed"))
    add("--device", help="where to train, as in cuda" + _default("device"))
    add(
        "--optimizer",
        choices=("adamw", "muon"),
        help="muon has the matrices of blocks, and AdamW the rest" + _default("optimizer"),
    )
    add(
        "--precision",
        choices=("fp32", "bf16"),
        help="bf16: passes compute in bfloat16, and weights stay float32" + _default("precision"),
    )
    add("--compile", action="store_true", default=None, help="compile the blocks with torch.compile")
    add(
        "--accumulate",
        type=int,
        metavar="N",
        help="compute a batch in N parts, which need less memory" + _default("accumulate"),
    )
    add(
        "--checkpoint",
        choices=("none", "block", "stage"),
        help="recompute activations of blocks or stages instead of keeping them (default: the pattern's)",
    )
    add("--val-every", type=int, metavar="N", help="evaluate every N steps (default: five times, or every 500 steps)")
    add(
        "--patience",
        type=int,
        metavar="N",
        help="stop after N evaluations that were no better than one before, and keep the best (default: never)",
    )
    add(
        "--mesh",
        metavar="AXES",
        help="ranks along each axis, as in fsdp=4 or dp=2,tp=2; under torchrun (default: fsdp, all that it started)",
    )
    add(
        "--schedule",
        help="of a pipeline's stages: gpipe, 1f1b, interleaved or zero-bubble (default: 1f1b)",
    )
    add("--timeout", type=float, metavar="S", help="seconds that ranks wait for one that hangs (default: 600)")
    add("--log", metavar="NAMES", help="also log to tensorboard, wandb (offline) or both, as in tensorboard,wandb")
    add(
        "--peak",
        type=float,
        metavar="TFLOPS",
        help="what a device computes at best, for the share of it (default: known of a GPU, measured of a CPU)",
    )
    add("--out", type=Path, metavar="RUN", help="folder to save in (default: runs/ and the time)")
    add(
        "--resume",
        type=Path,
        metavar="RUN",
        help="continue a run; other flags must agree with it, but for more --steps and a lower --lr",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="OPTIONS",
        help="stack settings, as after `set` in a pattern: --set rotary_pos_emb=false,ff_mult=2",
    )


def _default(name: str) -> str:
    return f" (default: {DEFAULTS[name]})"


def new_settings(args: argparse.Namespace) -> TrainSettings:
    """The settings of a new run: flags over --set over the pattern's own over the defaults.

    Raises PatternError for a faulty pattern or --set, UserError when --set and a flag disagree.
    """
    pattern = given_pattern(args) or blockdsl.parse(PATTERN)
    given = given_options(args)
    options = {**pattern.settings, **given}
    for name in ("dim", "heads", "checkpoint"):
        flag = getattr(args, name)
        if flag is not None and name in given and spell(options[name]) != spell(flag):
            raise UserError(f"--{name} {flag} and --set {name}={spell(options[name])} contradict each other")
    if args.checkpoint is not None:
        options["checkpoint"] = None if args.checkpoint == "none" else args.checkpoint
    own: dict[str, Any] = {name: options.pop(name) for name in ("dim", "heads") if name in options}

    def value(name: str) -> Any:
        flag = getattr(args, name)
        return flag if flag is not None else own.get(name, DEFAULTS[name])

    from ..train import TrainSettings, limit_threads

    return TrainSettings(
        pattern=str(pattern),
        text=None if args.text is None else absolute(args.text),
        data=None if args.data is None else str(Path(args.data).resolve()),
        text_digest="",
        minutes=args.minutes,
        threads=limit_threads(),
        options=options,
        **{name: value(name) for name in DEFAULTS},
    )


def check_watching(args: argparse.Namespace) -> None:
    """Raises UserError for a --peak or --log that cannot be."""
    if args.peak is not None and not (math.isfinite(args.peak) and args.peak > 0):
        raise UserError(f"--peak must be more than 0, not {args.peak:g}")
    from ..train import log_names

    log_names(args.log)


def given_options(args: argparse.Namespace) -> dict[str, Any]:
    """What every --set says together. Raises UserError when two of them disagree or one is faulty."""
    given: dict[str, Any] = {}
    for text in args.set:
        try:
            settings = blockdsl.parse_settings(text)
        except blockdsl.PatternError as error:
            raise UserError(f"--set: {error}") from None
        for name, value in settings.items():
            if given.setdefault(name, value) != value:
                raise UserError(f"--set gives {name} twice: {spell(given[name])} and {spell(value)}")
    return given


def absolute(paths: list[str]) -> tuple[str, ...]:
    return tuple(str(Path(path).resolve()) for path in paths)


def given_pattern(args: argparse.Namespace) -> blockdsl.Pattern | None:
    """What --pattern says, as its text, a file or "-" for standard input; None without it."""
    return None if args.pattern is None else source.read_pattern(args)


def check_agrees(args: argparse.Namespace, run_folder: RunFolder) -> None:
    """Raises UserError for a flag that the resumed run was not started with.

    --steps may be raised and --lr lowered; a --text is compared when it has been read.
    """
    settings = run_folder.settings
    saved = {**settings.options, "dim": settings.dim, "heads": settings.heads}
    wanted: list[tuple[str, Any, Any]] = [
        (f"--{name.replace('_', '-')}", getattr(args, name), getattr(settings, name))
        for name in (*DEFAULTS, "minutes")
        if name not in ("steps", "lr")
    ]
    wanted += [(f"--set {name}", v, saved.get(name)) for name, v in given_options(args).items()]
    wanted.append(("--checkpoint", args.checkpoint, saved.get("checkpoint") or "none"))
    if args.pattern is not None:
        wanted.append(("--pattern", str(given_pattern(args)), settings.pattern))
    if args.out is not None:
        wanted.append(("--out", args.out.resolve(), run_folder.path.resolve()))
    for flag, given, kept in wanted:
        if given is not None and given != kept:
            raise UserError(
                f"{flag} {shown(given)} contradicts the resumed run's {shown(kept)}: "
                "leave the flag out, or start a new run"
            )
    if args.steps is not None and args.steps < settings.steps:
        raise UserError(f"--steps {args.steps} contradicts the resumed run's {settings.steps}: it can only be raised")
    if args.lr is not None and not args.lr <= settings.lr:
        raise UserError(f"--lr {args.lr:g} contradicts the resumed run's {settings.lr:g}: it can only be lowered")


def shown(value: Any) -> str:
    if value is None:
        return "default"
    return " ".join(value) if isinstance(value, tuple) else spell(value)
