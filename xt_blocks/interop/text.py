"""Text in, text out: the model and the tokenizer of a folder that `save_pretrained` or Hugging Face wrote.

Owns which tokens a text is, when a text ends, and how text is shown while it grows. Leaves decoding to `generation`.
The extra `tokenizers` reads tokenizer.json; a model of 256 tokens without one reads bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from blockdsl.errors import UserError
from blockdsl.files import read_object

from ..blocks.packed import pack
from ..generation.autoregressive import AutoregressiveWrapper
from ..generation.seq2seq import XTransformer
from ..kernels.compat import onednn_supports
from ..models.transformer import TransformerWrapper
from ..runtime.devices import device_of
from .hugging_face import from_hugging_face
from .pretrained import from_pretrained

CONFIG, TOKENIZER = "config.json", "tokenizer.json"


class Tokenizer(Protocol):
    """Text as tokens, and back."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...


class Bytes:
    """A token is a byte of UTF-8."""

    def encode(self, text: str) -> list[int]:
        return [*text.encode("utf-8", errors="surrogateescape")]

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode("utf-8", errors="replace")


class Pieces:
    """The tokenizer of a tokenizer.json; special tokens are not shown.

    Args:
        special: whether it puts them around a text where it says.

    Raises:
        UserError: tokenizers is not installed, or the file is damaged.
    """

    def __init__(self, path: Path, special: bool = True) -> None:
        self.special = special
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise UserError(f"to read {path}, tokenizers is needed: pip install 'xt-blocks[tokenizers]'") from None
        try:
            self.own = Tokenizer.from_file(str(path))
        except Exception as error:  # it raises Exception itself
            raise UserError(f"{path} is no tokenizer: {error}") from None

    def encode(self, text: str) -> list[int]:
        tokens: list[int] = self.own.encode(text, add_special_tokens=self.special).ids
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        text: str = self.own.decode([*tokens])
        return text


class Writer(NamedTuple):
    """A model that goes on with a text.

    Attributes:
        start: the token that an empty text starts with; None: it cannot be empty.
        ends: tokens that end a text.
    """

    model: TransformerWrapper | XTransformer
    tokenizer: Tokenizer
    start: int | None = None
    ends: frozenset[int] = frozenset()

    @property
    def answers(self) -> bool:
        """Whether the text is an answer, and does not go on with the prompt."""
        return isinstance(self.model, XTransformer)

    def write(self, prompt: str, tokens: int, **sampling: Any) -> Iterator[str]:
        """The text that follows a prompt, piece by piece, as soon as each is sure; of an encoder-decoder, its answer.

        Args:
            tokens: how many at most.
            sampling: of `AutoregressiveWrapper.generate`: temperature, top_k, top_p, generator, ...; or beams, of
                `beam_search`, whose text comes whole.

        Raises:
            UserError: the prompt is empty, or the model cannot be sampled.
        """
        read = self.tokenizer.encode(prompt) or ([] if self.start is None else [self.start])
        if not read:
            raise UserError("the prompt is empty, and the model has no token that starts a text: give --prompt")
        given = torch.tensor([read], dtype=torch.int64, device=next(self.model.parameters()).device)
        if isinstance(self.model, XTransformer):
            first = self.model.start_token if self.start is None else self.start
            if first is None:
                raise UserError(
                    "the model has no token that an answer starts with: its decoder_start_token_id is not said"
                )
            given_to: tuple[Any, ...] = (self.model, given, given.new_tensor([[first]]), tokens)
        else:
            given_to = (AutoregressiveWrapper(self.model), given, tokens)
        model, *inputs = given_to
        if "beams" in sampling:
            steps = self._found(model, inputs, **sampling)
        else:
            steps = (int(token[0]) for token in model.stream(*inputs, **sampling))
        return self._pieces([] if self.answers else read, steps)

    def _found(self, model: Any, inputs: list[Any], beams: int) -> Iterator[int]:
        """The tokens of the likeliest text, up to the one that ends it."""
        net = model.decoder.net if isinstance(model, XTransformer) else model.net
        ends = sorted(end for end in self.ends if 0 <= end < net.num_tokens)
        found = model.beam_search(*inputs, beams=beams, **({"eos_token": ends} if ends else {}))
        return iter(found[0].tolist())

    def _pieces(self, seen: list[int], steps: Iterator[int]) -> Iterator[str]:
        """What the text gains by each token, once no later one can change it: a character may take several."""
        shown = len(self.tokenizer.decode(seen))
        for token in steps:
            if token in self.ends:
                break
            seen.append(token)
            text = self.tokenizer.decode(seen)
            if not text.endswith("\N{REPLACEMENT CHARACTER}"):
                yield text[shown:]
                shown = len(text)
        yield self.tokenizer.decode(seen)[shown:]


def load_writer(folder: Path, device: str = "cpu") -> Writer:
    """The model of a folder, packed on a CPU, with its tokenizer.

    On a CPU that has no instructions for the weights' type, they are float32.

    Raises:
        UserError: the folder cannot be read, the model gives no next tokens, or it has no tokenizer; or there is no
            such device.
    """
    place = device_of(device)
    config = read_object(folder / CONFIG)
    own = "xt_blocks" in config
    model = from_pretrained(folder) if own else from_hugging_face(folder)
    net = model.decoder.net if isinstance(model, XTransformer) else model
    if not isinstance(net, TransformerWrapper) or net.return_only_embed:
        raise UserError(f"{folder} has no model that gives logits of tokens, but a {type(model).__name__}")
    if isinstance(model, XTransformer) and (reads := model.encoder.graph.reads) != "tokens":
        raise UserError(f"{folder} has a model that reads {reads}, and a prompt is text: call its generate in Python")
    if reason := net.graph.sees_later():
        raise UserError(f"{folder} has a model that sees later tokens, and gives no next ones: {reason}")
    if (folder / TOKENIZER).is_file():
        tokenizer: Tokenizer = Pieces(folder / TOKENIZER)
    elif net.num_tokens == 256:
        tokenizer = Bytes()
    else:
        raise UserError(f"{folder} has no {TOKENIZER}, which says what its {net.num_tokens:,} tokens are")
    said = (config.get("hugging_face") or {}) if own else config
    if (folder / "generation_config.json").is_file():
        said = {**said, **read_object(folder / "generation_config.json")}
    start = said.get("decoder_start_token_id") if isinstance(model, XTransformer) else said.get("bos_token_id")
    ends = said.get("eos_token_id")
    model = model.to(place)
    if place.type == "cpu":
        model = pack(model if onednn_supports(next(model.parameters()).dtype) else model.float())
    return Writer(
        model,  # type: ignore[arg-type]
        tokenizer,
        start if start is not None or not isinstance(tokenizer, Bytes) else ord("\n"),
        frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends]),
    )
