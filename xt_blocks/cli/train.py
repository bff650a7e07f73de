"""`blockdsl train`: a pattern, some text, two minutes.

Owns the command and what is printed around the training. Leaves the flags to `train_flags`, and the training to
`xt_blocks.train`, which is imported when the command runs: `--help` never loads torch.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blockdsl
from blockdsl.errors import UserError
from blockdsl.graph.costs import parameters_in_words

from . import output, train_flags
from .train_flags import DEFAULTS, PATTERN, absolute, check_agrees, new_settings, shown

if TYPE_CHECKING:
    from ..train import Corpus, Engine, RunFolder, TrainSettings

SAMPLE_TOKENS = 200
MOST_DRAWN_LINES = 40
"""A longer drawing would push the rest off the screen; `blockdsl show` has it."""

EPILOG = f"""\
Without arguments it trains on the .py sources of the Python that runs it: megabytes of real text, on every
machine. A token is a byte; losses are in bits per byte, so 8 is a blind guess, and what guessing by the bytes'
frequencies would cost is printed beside them.

The default pattern is
  {PATTERN}
and a pattern's own `set` statements count as --set does; a flag wins over them.

examples:
  blockdsl train                                         two minutes on two cores
  blockdsl train --steps 20                              a quick look
  blockdsl train --pattern "macaron(4)" --dim 256 --minutes 10
  blockdsl train --pattern model.pattern --text book.txt letters.txt --out runs/book
  blockdsl train --set ff_mult=2 --set attn_dropout=0.1,ff_dropout=0.1
  blockdsl train --precision bf16 --compile --accumulate 4 --checkpoint block --device cuda
  blockdsl train --val-every 100 --patience 5            until five evaluations are no better
  blockdsl train --resume runs/book                      after Ctrl-C, a kill or a power cut
  blockdsl train --resume runs/book --steps 5000         train longer
  blockdsl train --resume runs/book --lr 1e-4            after a loss that was not finite

A run's folder holds pattern.txt, settings.json, graph.json, metrics.jsonl (a line a step), loss.png and
checkpoints. A stopped run continues from its last checkpoint with exactly the numbers it would have had. Given more
steps than before, the learning rate follows the longer run's curve from there on: it rises again, and the
numbers differ from those of an uninterrupted run. A lower --lr scales the rest of the curve. Text that was moved is
given with --text, and has to be the same text.
"""


def add_parser(subparsers: Any) -> None:
    """Add the `train` command to argparse's subparsers."""
    parser = subparsers.add_parser(
        "train",
        help="train a byte-level language model from a pattern, on real text",
        description="Train a causal, byte-level language model from a pattern and save it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train_flags.add_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train; 0 when done, 130 after Ctrl-C. Raises UserError, or PatternError, before anything is built."""
    # Threads that wait sleep, instead of spinning: with anything else running on the machine, two spinning threads
    # train at a fraction of the speed of one. torch reads this when it is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with output.lasting():
        try:
            return _resume(args) if args.resume is not None else _start(args)
        except KeyboardInterrupt:
            print("stopped at once; a saved run continues from its last checkpoint", file=sys.stderr)
            return 130


def _start(args: argparse.Namespace) -> int:
    settings = new_settings(args)
    from .. import train

    out = train.default_path(Path("runs")) if args.out is None else args.out
    settings.check()
    train.check_free(out)
    graph = train.compile_graph(settings)
    train.check_fits(graph)
    corpus = train.load_corpus(settings.text, settings.seq_len)
    settings = replace(settings, text_digest=corpus.digest)
    _describe(settings, graph, corpus)

    model = train.build_model(graph, settings.seed)
    train.check_lookahead(model, settings.seq_len)
    model.to(settings.device)
    if settings.minutes is not None:
        steps = train.steps_within(model, corpus, settings, settings.minutes)
        print(f"steps     {steps:,} take about {settings.minutes:g} minutes here")
        settings = replace(settings, steps=steps)
    return _train(train.RunFolder.create(out, settings, graph.to_json()), train.LocalEngine(model, settings), corpus)


def _resume(args: argparse.Namespace) -> int:
    from .. import train

    run_folder = train.RunFolder.open(args.resume)
    check_agrees(args, run_folder)
    settings = run_folder.settings
    settings.check()
    corpus = _same_text(args, run_folder)
    if args.text is not None:
        settings = replace(settings, text=absolute(args.text))
    if args.steps is not None and args.steps > settings.steps:
        print(
            f"steps     raised from {settings.steps:,} to {args.steps:,}: from here on the learning rate "
            "follows the longer run's curve, so it rises again"
        )
        settings = replace(settings, steps=args.steps)
    if args.lr is not None and args.lr < settings.lr:
        print(f"lr        lowered from {settings.lr:g} to {args.lr:g} from here on")
        settings = replace(settings, lr=args.lr)
    settings.check()
    if settings != run_folder.settings:
        run_folder.update(settings)
    if not train.resume_threads(settings.threads):
        print(f"threads   fewer than the {settings.threads} it was started with: numbers may differ in the last digits")
    graph = run_folder.graph()
    _describe(settings, graph, corpus)
    model = train.build_model(graph, settings.seed).to(settings.device)
    return _train(run_folder, train.LocalEngine(model, settings), corpus)


def _same_text(args: argparse.Namespace, run_folder: RunFolder) -> Corpus:
    """The text of a resumed run, from where --text says it is now. Raises UserError when it is gone, or another."""
    from .. import train

    settings, given = run_folder.settings, args.text is not None
    gone = [path for path in settings.text or () if not Path(path).exists()]
    if gone and not given:
        raise UserError(
            f"--resume {args.resume}: the run's text {gone[0]} is not there any more; if it was moved, say where it is "
            "with --text"
        )
    corpus = train.load_corpus(args.text if given else settings.text, settings.seq_len)
    if corpus.digest == settings.text_digest:
        return corpus
    if given:
        raise UserError(
            f"--text {shown(absolute(args.text))} is another text than the resumed run's ({shown(settings.text)}): "
            "leave the flag out, or start a new run"
        )
    raise UserError(f"--resume {args.resume}: the text ({corpus.source}) has changed since the run began")


def _describe(settings: TrainSettings, graph: blockdsl.BlockGraph, corpus: Corpus) -> None:
    flops = graph.flops(settings.seq_len) / settings.seq_len
    print(f"pattern   {settings.pattern}\n")
    drawing = graph.to_text()
    if not output.encodable(drawing):
        drawing = graph.to_text(ascii=True)
    if drawing.count("\n") < MOST_DRAWN_LINES:
        print(textwrap.indent(drawing.rstrip(), " " * 10) + "\n")
    print(f"model     {parameters_in_words(graph)}, {flops / 1e6:.1f} MFLOPs per byte forward")
    train, valid = len(corpus.train) / 1e6, len(corpus.valid) / 1e6
    print(
        f"text      {corpus.source}: {train:.2f} MB to train on, {valid:.2f} MB held out",
        flush=True,
    )


def _train(run_folder: RunFolder, engine: Engine, corpus: Corpus) -> int:
    from .. import train

    settings, trainer = run_folder.settings, train.Trainer(run_folder, engine, corpus)
    for note in trainer.restore():
        print(f"note: {note}", file=sys.stderr)
    if trainer.step_saved >= 0:
        print(f"resumed   after step {trainer.step_done:,} of {settings.steps:,}", flush=True)
    progress = train.ProgressBar(settings.steps, trainer.step_done, settings.batch * settings.seq_len)
    folder = shlex.quote(str(run_folder.path))
    with train.StopRequest() as stop:
        try:
            trainer.train(progress, stop)
        except train.NotFinite as error:
            lower = min(settings.lr / 10, DEFAULTS["lr"])
            raise UserError(
                f"{error}\n  the run keeps its checkpoint of step {trainer.step_saved:,}, from before that; go on from "
                f"it with\n  blockdsl train --resume {folder} --lr {lower:g}"
            ) from None
        finally:
            progress.close()
    if trainer.stopped_early:
        print(f"stopped   after step {trainer.step_done:,}: {trainer.best.since} evaluations were no better")
    unigram = train.unigram_bits_per_byte(corpus.train, corpus.valid)
    with _optional(f"{run_folder.plot} was not drawn"):
        train.plot_losses(train.read_metrics(run_folder.metrics), unigram, run_folder.plot)
    if stop.signal is not None:
        print(f"stopped after step {trainer.step_done}, saved; continue with", file=sys.stderr)
        print(f"  blockdsl train --resume {folder}", file=sys.stderr)
        return stop.exit_code
    _conclude(run_folder, corpus, unigram)
    return 0


@contextmanager
def _optional(failed: str) -> Iterator[None]:
    """What comes after the training never fails it: an error is told in a line."""
    try:
        yield
    except Exception as error:
        print(f"note: {failed}: {error or type(error).__name__}", file=sys.stderr)


def _conclude(run_folder: RunFolder, corpus: Corpus, unigram: float) -> None:
    from .. import train

    if evaluations := [r for r in train.read_metrics(run_folder.metrics) if "val_bits_per_byte" in r]:
        before, after = evaluations[0]["val_bits_per_byte"], evaluations[-1]["val_bits_per_byte"]
        if run_folder.settings.patience is not None:
            after = min(record["val_bits_per_byte"] for record in evaluations)
        print(f"held out  {before:.3f} bits per byte before, {after:.3f} after; byte unigram entropy {unigram:.3f}")
        print("          (the unigram's byte frequencies are the training text's, add-one smoothed)")
    prompt = train.example_prompt(corpus.valid)
    with _optional("there is no sample"):
        model = train.load_trained(run_folder.path, run_folder.settings.device)
        sampled = train.sample(model, prompt.encode(), SAMPLE_TOKENS, temperature=0.8)
        print("sample")
        train.show_text(prompt.encode() + sampled)
    print(f"saved     {run_folder.path}")
    print(f'more      blockdsl generate {shlex.quote(str(run_folder.path))} --prompt "{prompt}"')
