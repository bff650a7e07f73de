"""How a model over images and texts is called, ours and that of `transformers`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from .images import Images
from .texts import Texts


class Both:
    """Logits of every image and text; instead of padding alone, images of another size too."""

    def __init__(self, ours: Any, theirs: Any) -> None:
        self.models = ours, theirs
        self.images, self.texts = Images(ours.image, theirs.vision_model), Texts(ours.text, theirs.text_model)

    def ours(self, padded: bool = False) -> Tensor:
        """(images, texts)"""
        given = {"mask": self._mask(padded), "interpolate_pos": padded}
        logits: Tensor = self.models[0](self.images.images[padded], self.texts.tokens, **given)
        return logits

    def theirs(self, padded: bool = False) -> Tensor:
        """The same of theirs."""
        mask = self._mask(padded)
        logits: Tensor = self.models[1](
            input_ids=self.texts.tokens,
            pixel_values=self.images.images[padded],
            attention_mask=None if mask is None else mask.long(),
            interpolate_pos_encoding=padded,
        ).logits_per_image
        return logits

    def hidden(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Those of both encoders."""
        yield from self.images.hidden()
        yield from self.texts.hidden()

    def tokens_missed(self) -> None:
        return None

    def _mask(self, padded: bool) -> Tensor | None:
        return self.texts.mask if padded and self.texts.padded else None
