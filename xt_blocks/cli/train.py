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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

import blockdsl
from blockdsl.errors import UserError
from blockdsl.graph.costs import parameters_in_words, sizes, total

from . import output, train_flags
from .train_flags import DEFAULTS, PATTERN, absolute, check_agrees, check_watching, new_settings, shown

if TYPE_CHECKING:
    from ..train import Corpus, Engine, RunFolder, TokenCorpus, Trainer, TrainSettings
    from ..train.launch import Launch

T = TypeVar("T")

SAMPLE_TOKENS = 200
MOST_DRAWN_LINES = 40
"""A longer drawing would push the rest off the screen; `blockdsl show` has it."""

EPILOG = f"""\
Without arguments it trains on the .py sources of the Python that runs it: megabytes of real text, on every
machine. A token is a byte; losses are in bits per byte, so 8 is a blind guess, and what guessing by the bytes'
frequencies would cost is printed beside them. With --data, tokens are those of its tokenizer and training losses are
in nats per token.

The default pattern is
  {PATTERN}
and a pattern's own `set` statements count as --set does; a flag wins over them.

examples:
  blockdsl train                                         two minutes on two cores
  blockdsl train --steps 20                              a quick look
  blockdsl train --pattern "macaron(4)" --dim 256 --minutes 10
  blockdsl train --pattern model.pattern --text book.txt letters.txt --out runs/book
  blockdsl train --data tokens --set ff_glu              a folder that `blockdsl tokenize` made
  blockdsl train --set ff_mult=2 --set attn_dropout=0.1,ff_dropout=0.1
  blockdsl train --precision bf16 --compile --accumulate 4 --checkpoint block --device cuda
  blockdsl train --val-every 100 --patience 5            until five evaluations are no better
  blockdsl train --log tensorboard,wandb                 the numbers there too, within the run's folder
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
        help="train a language model from a pattern, on real text",
        description="Train a causal language model from a pattern, over bytes or tokens, and save it.",
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
    from ..train.launch import Silent, process_group, started_again

    with output.lasting():
        try:
            with process_group("train --out RUN", args.mesh, args.device or "cpu", args.timeout) as ranks:
                _check_launch(args, ranks)
                if args.out is not None and started_again(ranks) and _begun(args.out, ranks):
                    args.resume = args.out
                return _resume(args, ranks) if args.resume is not None else _start(args, ranks)
        except Silent:
            return 1
        except KeyboardInterrupt:
            print("stopped at once; a saved run continues from its last checkpoint", file=sys.stderr)
            return 130


def _start(args: argparse.Namespace, ranks: Launch | None) -> int:
    settings = new_settings(args)
    from .. import train

    out = train.default_path(Path("runs")) if args.out is None else args.out
    check_watching(args)
    settings.check()
    first = _first(ranks)
    first(lambda: train.check_free(out))
    tokens = None if settings.data is None else train.open_tokens(Path(settings.data), settings.seq_len)
    if tokens is not None:
        settings = replace(settings, num_tokens=tokens.num_tokens, end=tokens.end)
    graph = train.compile_graph(settings)
    if ranks is None:
        train.check_fits(graph)
    corpus = tokens or train.load_data(settings)
    settings = replace(settings, text_digest=corpus.digest)
    _describe(settings, graph, corpus, ranks)

    tokenizer, written = None if tokens is None else tokens.tokenizer, settings
    if ranks is not None:
        engine = ranks.engine(graph, settings, args.schedule or "1f1b")
        run_folder = first(lambda: train.RunFolder.create(out, written, graph.to_json(), tokenizer))
        return _train(args, run_folder, engine, corpus)
    model = train.build_model(graph, settings.seed)
    train.check_lookahead(model, settings.seq_len)
    model.to(settings.device)
    if settings.minutes is not None:
        steps = train.steps_within(model, corpus, settings, settings.minutes)
        print(f"steps     {steps:,} take about {settings.minutes:g} minutes here")
        settings = replace(settings, steps=steps)
    run_folder = train.RunFolder.create(out, settings, graph.to_json(), tokenizer)
    return _train(args, run_folder, train.LocalEngine(model, settings), corpus)


def _resume(args: argparse.Namespace, ranks: Launch | None) -> int:
    from .. import train

    first = _first(ranks)
    run_folder = first(lambda: train.RunFolder.open(args.resume))  # once, as it is changed below
    check_watching(args)
    check_agrees(args, run_folder)
    settings = run_folder.settings
    settings.check()
    corpus = _same_data(args, run_folder)
    if args.text is not None:
        settings = replace(settings, text=absolute(args.text))
    if args.data is not None:
        settings = replace(settings, data=str(Path(args.data).resolve()))
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
        opened, changed = run_folder, settings
        run_folder = first(lambda: opened.update(changed))
    if not train.resume_threads(settings.threads):
        print(f"threads   fewer than the {settings.threads} it was started with: numbers may differ in the last digits")
    graph = run_folder.graph()
    _describe(settings, graph, corpus, ranks)
    if ranks is not None:
        return _train(args, run_folder, ranks.engine(graph, settings, args.schedule or "1f1b"), corpus)
    model = train.build_model(graph, settings.seed).to(settings.device)
    return _train(args, run_folder, train.LocalEngine(model, settings), corpus)


def _begun(out: Path, ranks: Launch | None) -> bool:
    """Whether the run was there when the first rank looked; one that is late might find what that has made since."""
    return _first(ranks)((out / "settings.json").is_file)


def _first(ranks: Launch | None) -> Callable[[Callable[[], T]], T]:
    """What the first rank does for all; of one process, that."""
    return _alone if ranks is None else ranks.first


def _alone(function: Callable[[], T]) -> T:
    return function()


def _check_launch(args: argparse.Namespace, ranks: Launch | None) -> None:
    """Raises UserError for flags that do not go with torchrun, or with one process."""
    if args.schedule is not None and (ranks is None or ranks.mesh.pp == 1):
        raise UserError("--schedule orders the stages of a pipeline, and there is none: give --mesh pp=2")
    if ranks is None:
        if args.timeout is not None:
            raise UserError("--timeout is how long ranks wait for one another, and this is one process")
        return
    if args.out is None and args.resume is None:
        raise UserError(
            "torchrun starts the command again when a rank fails, and it goes on from its folder: give --out"
        )
    if args.minutes is not None:
        raise UserError("--minutes is timed on one process, and torchrun started several: give --steps")


def _same_data(args: argparse.Namespace, run_folder: RunFolder) -> Corpus | TokenCorpus:
    """What a resumed run reads, from where a flag says it is. Raises UserError when it is gone, or another."""
    from .. import train

    settings = run_folder.settings
    of_text = settings.data is None
    name, kept = ("text", settings.text) if of_text else ("data", (str(settings.data),))
    moved = args.text if of_text else args.data and [args.data]
    if (args.data if of_text else args.text) is not None:
        raise UserError(f"--resume {args.resume}: the run reads --{name} {shown(kept)}; leave the other flag out")
    gone = [path for path in kept or () if not Path(path).exists()]
    if gone and moved is None:
        raise UserError(
            f"--resume {args.resume}: the run's {name} {gone[0]} is not there any more; if it was moved, say where it "
            f"is with --{name}"
        )
    if moved is not None:
        settings = replace(settings, text=tuple(moved)) if of_text else replace(settings, data=moved[0])
    corpus = train.load_data(settings)
    if corpus.digest == settings.text_digest:
        return corpus
    if moved is not None:
        raise UserError(
            f"--{name} {shown(absolute(moved))} is another {name} than the resumed run's ({shown(kept)}): "
            "leave the flag out, or start a new run"
        )
    raise UserError(f"--resume {args.resume}: the {name} ({corpus.source}) has changed since the run began")


def _describe(
    settings: TrainSettings, graph: blockdsl.BlockGraph, corpus: Corpus | TokenCorpus, ranks: Launch | None
) -> None:
    flops = graph.flops(settings.seq_len) / settings.seq_len
    print(f"pattern   {settings.pattern}\n")
    drawing = graph.to_text()
    if not output.encodable(drawing):
        drawing = graph.to_text(ascii=True)
    if drawing.count("\n") < MOST_DRAWN_LINES:
        print(textwrap.indent(drawing.rstrip(), " " * 10) + "\n")
    per, name, unit = ("byte", "text", "MB") if settings.data is None else ("token", "tokens", "million")
    print(f"model     {parameters_in_words(total(graph, sizes(1, 1)))}, {flops / 1e6:.1f} MFLOPs per {per} forward")
    train, valid = len(corpus.train) / 1e6, len(corpus.valid) / 1e6
    print(f"{name:<10}{corpus.source}: {train:.2f} {unit} to train on, {valid:.2f} {unit} held out", flush=True)
    if ranks is not None:
        from blockdsl.plan.local import tensor_splits, whole_layers  # needs networkx

        whole = whole_layers(tensor_splits(graph, ranks.mesh.tp))
        print(f"mesh      {ranks.mesh}" + (f"; whole on every rank of tp: {whole}" if whole else ""), flush=True)


def _train(args: argparse.Namespace, run_folder: RunFolder, engine: Engine, corpus: Corpus | TokenCorpus) -> int:
    from .. import train

    settings = run_folder.settings
    if not run_folder.path.is_dir():  # the first rank has made it, or opened it
        raise UserError(f"{run_folder.path} is not here: machines of one job need a folder that all of them see")
    peak = (args.peak * 1e12, "as told") if args.peak else train.peak_flops(settings.device, settings.precision)
    if engine.main:
        run_folder.tidy()
    trainer = train.Trainer(run_folder, engine, corpus, peak[0] * engine.devices)
    notes = trainer.restore()
    for note in notes if engine.main else ():
        print(f"note: {note}", file=sys.stderr)
    if trainer.step_saved >= 0:
        print(f"resumed   after step {trainer.step_done:,} of {settings.steps:,}", flush=True)
    progress = train.ProgressBar(settings.steps, trainer.step_done, settings.batch * settings.seq_len, unit=corpus.unit)
    reporter = train.Reporters(
        progress, *train.open_logs(args.log if engine.main else None, run_folder, trainer.step_done)
    )
    again = _command_to_resume(args, run_folder, engine)
    with train.StopRequest() as stop:
        try:
            trainer.train(reporter, stop)
            engine.close()
        except train.NotFinite as error:
            engine.close()  # the last checkpoint may still be being written
            lower = min(settings.lr / 10, DEFAULTS["lr"])
            raise UserError(
                f"{error}\n  the run keeps its checkpoint of step {trainer.step_saved:,}, from before that; go on from "
                f"it with\n  {again} --lr {lower:g}"
            ) from None
        finally:
            reporter.close()
    stopped = stop.signal is not None or not trainer.finished  # by a signal that perhaps another process was sent
    if not stopped:
        _export(trainer)
    if engine.main:
        _draw_and_tell(trainer, corpus, again if stopped else None, peak)
    if not stopped:
        return 0
    _export(trainer)  # after the words, as torchrun waits for half a minute
    return stop.exit_code


def _command_to_resume(args: argparse.Namespace, run_folder: RunFolder, engine: Engine) -> str:
    command = f"blockdsl train --resume {shlex.quote(str(run_folder.path))}"
    if engine.devices == 1:
        return command
    mesh = f" --mesh {args.mesh}" if args.mesh else ""
    return f"torchrun --nproc-per-node {engine.devices} -m {command}{mesh}"


def _export(trainer: Trainer) -> None:
    with _optional(f"{trainer.run.path} has no model.safetensors of the last checkpoint", told=trainer.engine.main):
        trainer.export()


def _draw_and_tell(trainer: Trainer, corpus: Corpus | TokenCorpus, again: str | None, peak: tuple[float, str]) -> None:
    """
    Args:
        again: the command that goes on with a run that was stopped.
    """
    from .. import train

    run_folder = trainer.run
    if trainer.stopped_early:
        print(f"stopped   after step {trainer.step_done:,}: {trainer.best.since} evaluations were no better")
    unigram = train.unigram_bits_per_byte(corpus.train, corpus.valid) if isinstance(corpus, train.Corpus) else None
    with _optional(f"{run_folder.plot} was not drawn"):
        train.plot_losses(train.read_metrics(run_folder.metrics), unigram, run_folder.plot)
    if again is not None:
        print(f"stopped after step {trainer.step_done}, saved; continue with\n  {again}", file=sys.stderr, flush=True)
        return
    _tell_speed(train.read_metrics(run_folder.metrics), peak)
    _conclude(run_folder, corpus, unigram)


def _tell_speed(records: list[dict[str, Any]], peak: tuple[float, str]) -> None:
    """Of a step in the middle: the first ones are slow, and one may be disturbed."""
    if timed := [record for record in records if "mfu" in record]:
        speed, share = (median(record[name] for record in timed) for name in ("tokens_per_second", "mfu"))
        print(f"speed     {speed:,.0f} tokens a second, {share:.1%} of {peak[0] / 1e12:,.3g} TFLOP/s ({peak[1]})")


@contextmanager
def _optional(failed: str, told: bool = True) -> Iterator[None]:
    """What comes after the training never fails it: an error is told in a line."""
    try:
        yield
    except Exception as error:
        if told:
            print(f"note: {failed}: {error or type(error).__name__}", file=sys.stderr)


def _conclude(run_folder: RunFolder, corpus: Corpus | TokenCorpus, unigram: float | None) -> None:
    from .. import train

    if evaluations := [r for r in train.read_metrics(run_folder.metrics) if "val_bits_per_byte" in r]:
        before, after = evaluations[0]["val_bits_per_byte"], evaluations[-1]["val_bits_per_byte"]
        if run_folder.settings.patience is not None:
            after = min(record["val_bits_per_byte"] for record in evaluations)
        baseline = "" if unigram is None else f"; byte unigram entropy {unigram:.3f}"
        print(f"held out  {before:.3f} bits per byte before, {after:.3f} after{baseline}")
        if unigram is not None:
            print("          (the unigram's byte frequencies are the training text's, add-one smoothed)")
    prompt = train.example_prompt(corpus.valid) if isinstance(corpus, train.Corpus) else ""
    with _optional("there is no sample"):
        sampled = _sample(run_folder, prompt)
        print("sample")
        train.show_text(sampled)
    print(f"saved     {run_folder.path}")
    print(f'more      blockdsl generate {shlex.quote(str(run_folder.path))} --prompt "{prompt}"')


def _sample(run_folder: RunFolder, prompt: str) -> bytes:
    from .. import train

    device = run_folder.settings.device
    if run_folder.tokenizer.is_file():
        pieces = train.load_run_writer(run_folder.path, device).write(prompt, SAMPLE_TOKENS, temperature=0.8)
        return "".join([prompt, *pieces]).encode()
    model = train.load_trained(run_folder.path, device)
    return prompt.encode() + train.sample(model, prompt.encode(), SAMPLE_TOKENS, temperature=0.8)
