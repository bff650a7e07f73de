"""Inspecting the model of a run: what it can be shown, and attention maps.

Owns drawing an attention map and the labels of its bytes. `xt_blocks.record` records the pass.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blockdsl.errors import UserError

from ..runtime.record import attention_map
from .plot import new_figure
from .run_folder import RunFolder
from .sample import load_trained
from .source import load_data

if TYPE_CHECKING:
    from .. import TransformerWrapper
    from .data import Data

FORMATS = (".png", ".svg", ".pdf")
_MOST_TICKS = 100  # labelled tokens, at a readable size
_INCHES = 0.16  # a token


def held_out(run: RunFolder) -> list[int]:
    """The first sequence that the run did not train on. Raises UserError when its text is gone."""
    seq_len = run.settings.seq_len
    first: list[int] = data_of_run(run, "say what the model is to read").validation(seq_len, seq_len)[0, :-1].tolist()
    return first


def data_of_run(run: RunFolder, advice: str) -> Data:
    """What the run was trained on and validated with. Raises UserError when it is gone, with advice."""
    settings = run.settings
    files = (settings.data,) if settings.data is not None else settings.text or ()
    if not all(Path(file).exists() for file in files):
        raise UserError(f"the text that {run.path} was trained on is not there any more: {advice}")
    return load_data(settings)


def encoded(run: RunFolder, text: bytes) -> list[int]:
    """The tokens of a text. Raises UserError when the run's tokenizer cannot be read."""
    return run.read_tokenizer().encode(text.decode("utf-8", "surrogateescape"))


def tokens_of(model: TransformerWrapper, text: Sequence[int]) -> Tensor:
    """(1, seq) int64, the tokens of a text.

    Raises:
        UserError: there are none, or more than the model reads.
    """
    unit = "byte" if model.num_tokens == 256 else "token"
    if not text:
        raise UserError(f"the text is empty: give at least one {unit}")
    if model.max_seq_len is not None and len(text) > model.max_seq_len:
        raise UserError(f"the text has {len(text):,} {unit}s, and the model reads {model.max_seq_len:,}")
    return torch.tensor([[*text]], device=next(model.parameters()).device, dtype=torch.int64)


def draw_attention(path: Path, text: bytes, block: str, head: int, form: str, device: str = "cpu") -> bytes:
    """The attention weights of a head of the run at `path` on a text, as an image.

    Args:
        form: one of FORMATS.

    Raises:
        UserError: there is no trained run at `path`; the text is empty or longer than the model reads; or the block has
            no attention or no such head.
    """
    model, run = load_trained(path, device), RunFolder.open(path)
    tokens = encoded(run, text)
    weights = attention_map(model, tokens_of(model, tokens), block, head)
    figure = _figure(weights, token_names(run, tokens), f"{block}, head {head}")
    image = io.BytesIO()
    figure.savefig(image, format=form[1:], dpi=150)
    return image.getvalue()


def _figure(weights: Tensor, names: list[str], title: str) -> Any:
    """`weights: (queries, keys)`; in both, tokens come after memory key-values."""
    queries, keys = weights.shape
    size = [min(max(count, 12), 2 * _MOST_TICKS) * _INCHES for count in (keys, queries)]
    figure = new_figure(size[0] + 1.6, size[1] + 1.2)
    axes = figure.add_subplot(title=title, xlabel="key", ylabel="query")
    image = axes.imshow(weights.float().cpu().numpy(), cmap="viridis", vmin=0, aspect="auto", interpolation="nearest")
    figure.colorbar(image, label="weight")
    for axis, count in ((axes.xaxis, keys), (axes.yaxis, queries)):
        labels = ["mem"] * (count - len(names)) + names
        every = -(-count // _MOST_TICKS)
        axis.set_ticks(range(0, count, every), labels[::every], fontsize=7, family="monospace")
    axes.tick_params(axis="x", rotation=90 if keys > len(names) else 0)  # "mem" is too wide to be horizontal
    return figure


def token_names(run: RunFolder, tokens: Sequence[int]) -> list[str]:
    """Each token's tick label."""
    if not run.tokenizer.is_file():
        return [byte_name(token) for token in tokens]
    tokenizer = run.read_tokenizer()
    return [tokenizer.decode([token]).replace("$", r"\$") for token in tokens]


def byte_name(byte: int) -> str:
    """A byte's tick label: the character itself if it is visible ASCII."""
    known = {ord(" "): "␣", ord("\n"): "↵", ord("\t"): "⇥", ord("$"): r"\$"}
    return known.get(byte) or (chr(byte) if 0x20 < byte < 0x7F else f"{byte:02x}")
