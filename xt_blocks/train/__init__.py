"""Training a byte-level language model from a pattern: what `blockdsl train` and `generate` are made of."""

from ..runtime.seeds import seed_for
from .coords import CoordinateCheck, check_coordinates, plot_coordinates
from .data import Corpus, Data, load_corpus
from .device import peak_flops
from .engine import Engine, LocalEngine, NotFinite, StepResult
from .interrupt import StopRequest
from .logs import Reporter, Reporters, log_names, open_logs
from .look import FORMATS, data_of_run, draw_attention
from .loop import Trainer, bits_per_byte
from .metrics import MEASURED, read_metrics
from .model import build_model, check_fits, check_lookahead, compile_graph
from .pace import steps_within
from .plot import plot_losses
from .progress import ProgressBar
from .run_folder import RunFolder, check_free, default_path
from .sample import (
    example_prompt,
    fresh_seed,
    load_job,
    load_run_writer,
    load_trained,
    printable,
    sample,
    sample_over_ranks,
    show_text,
)
from .settings import TrainSettings, check_device
from .source import load_data
from .threads import limit_threads, resume_threads
from .token_files import TokenCorpus, open_tokens
from .tokenizing import tokenize
from .unigram import unigram_bits_per_byte

__all__ = [
    "FORMATS",
    "MEASURED",
    "CoordinateCheck",
    "Corpus",
    "Data",
    "Engine",
    "LocalEngine",
    "NotFinite",
    "ProgressBar",
    "Reporter",
    "Reporters",
    "RunFolder",
    "StepResult",
    "StopRequest",
    "TokenCorpus",
    "TrainSettings",
    "Trainer",
    "bits_per_byte",
    "build_model",
    "check_coordinates",
    "check_device",
    "check_fits",
    "check_free",
    "check_lookahead",
    "compile_graph",
    "data_of_run",
    "default_path",
    "draw_attention",
    "example_prompt",
    "fresh_seed",
    "limit_threads",
    "load_corpus",
    "load_data",
    "load_job",
    "load_run_writer",
    "load_trained",
    "log_names",
    "open_logs",
    "open_tokens",
    "peak_flops",
    "plot_coordinates",
    "plot_losses",
    "printable",
    "read_metrics",
    "resume_threads",
    "sample",
    "sample_over_ranks",
    "seed_for",
    "show_text",
    "steps_within",
    "tokenize",
    "unigram_bits_per_byte",
]
