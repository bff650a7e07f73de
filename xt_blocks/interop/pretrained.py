"""The model of a folder that `save_pretrained` wrote, of whichever class it is."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..generation.seq2seq import XTransformer
from ..models.dual import DualEncoder
from ..models.encoder_decoder import EncoderDecoder
from ..models.lower import MODELS
from ..models.sequence import SequenceModel
from ..models.vision import ViTransformerWrapper
from ..runtime import hub
from ..runtime.pretrained import Saved
from ..runtime.stack import Stack

if TYPE_CHECKING:
    from blockdsl import BlockGraph


def from_pretrained(
    folder: str | PathLike[str], *, revision: str | None = None, **options: Any
) -> Stack | SequenceModel | ViTransformerWrapper | XTransformer | EncoderDecoder | DualEncoder:
    """The model of a folder that `save_pretrained` wrote.

    Its class is what its graph says, as `lower` makes them, XTransformer where there is an encoder and a decoder, or
    DualEncoder where there is one of images and one of texts.

    Args:
        folder, revision, options: as the classes' own `from_pretrained` has them.

    Raises:
        UserError, GraphError: as theirs.
    """
    found = hub.folder_of(Path(folder) if not isinstance(folder, str) else folder, revision)
    graphs = Saved.read(found).graphs
    owner: type[Any] = _owner(graphs)
    model: Stack | SequenceModel | ViTransformerWrapper | XTransformer | EncoderDecoder | DualEncoder = (
        owner.from_pretrained(found, **options)
    )
    return model


def _owner(graphs: Mapping[str, BlockGraph]) -> type[Any]:
    if "" not in graphs:
        return DualEncoder if "image" in graphs else XTransformer
    if graphs[""].encoder is not None:
        return EncoderDecoder
    return Stack if graphs[""].reads is None else MODELS[graphs[""].reads]
