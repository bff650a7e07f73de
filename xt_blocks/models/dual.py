"""Images and texts in one space: two encoders, and how near their vectors are to each other."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.errors import UserError

from ..kernels.compat import uncompiled
from ..runtime.drawn import Drawn
from ..runtime.pretrained import Pretrained
from .lower import lower_stream
from .transformer import TransformerWrapper
from .vision import ViTransformerWrapper

if TYPE_CHECKING:
    from typing_extensions import Self

    from blockdsl import BlockGraph


class DualEncoder(Drawn, Pretrained, nn.Module):
    """An encoder of images and one of texts, whose vectors are compared (CLIP, Radford et al., arXiv:2103.00020).

    Args:
        image: a model that gives one vector for an image: with pool or dim_out.
        text: one that gives as long a vector for a text: with pool.
        logit_scale: the logarithm of the learned factor of cosines, at first.
        logit_bias: of a learned number added to them, at first (SigLIP, arXiv:2303.15343); None: without.

    Raises:
        TypeError: one of the two is another kind of model.
        UserError: one of them gives no vector, or their vectors differ in width.
    """

    def __init__(
        self,
        image: ViTransformerWrapper,
        text: TransformerWrapper,
        logit_scale: float = log(1 / 0.07),
        logit_bias: float | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(uncompiled(image), ViTransformerWrapper):
            raise TypeError(f"image must be a ViTransformerWrapper, not {type(image).__name__}")
        if not isinstance(uncompiled(text), TransformerWrapper):
            raise TypeError(f"text must be a TransformerWrapper, not {type(text).__name__}")
        if not image.pools:
            raise UserError("the image encoder gives no vector of an image: make it with pool= or dim_out=")
        if text.pool is None:
            raise UserError("the text encoder gives no vector of a text: make it with pool=")
        if (ours := _width(image.graph)) != (theirs := _width(text.graph)):
            raise UserError(f"the vector of an image has {ours} features, and that of a text {theirs}")
        self.image, self.text = image, text
        self.logit_scale = nn.Parameter(torch.full((1,), float(logit_scale)))
        self.logit_bias = None if logit_bias is None else nn.Parameter(torch.full((1,), float(logit_bias)))

    @property
    def graphs(self) -> dict[str, BlockGraph]:
        """Those of both."""
        return {"image": self.image.graph, "text": self.text.graph}

    @classmethod
    def from_graphs(cls, graphs: Mapping[str, BlockGraph], **arguments: Any) -> Self:
        if {*graphs} != {"image", "text"}:
            raise UserError(f"these are no graphs of an image and a text, but of {' and '.join(graphs) or 'nothing'}")
        return cls(lower_stream(graphs["image"]), lower_stream(graphs["text"]), **arguments)  # type: ignore[arg-type]

    def arguments(self) -> dict[str, Any]:
        return {} if self.logit_bias is None else {"logit_bias": 0.0}

    def forward(
        self,
        img: Tensor,
        tokens: Tensor,
        mask: Tensor | None = None,
        interpolate_pos: bool = False,
        image_condition: Tensor | None = None,
        text_condition: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            img: (images, channels, height, width)
            tokens: (texts, seq) int
            mask: (texts, seq) bool, True = a real token.
            interpolate_pos: images may have another size than the model's.
            image_condition, text_condition: (images or texts, dim_condition), for adaptive norms and layer scales.

        Returns:
            (images, texts), for each pair the scaled cosine of the two vectors; rows are logits of an image's texts.
        """
        images = F.normalize(self.image(img, interpolate_pos=interpolate_pos, condition=image_condition), dim=-1)
        texts = F.normalize(self.text(tokens, mask=mask, condition=text_condition), dim=-1)
        logits = images @ texts.T * self.logit_scale.exp()
        return logits if self.logit_bias is None else logits + self.logit_bias


def _width(graph: BlockGraph) -> int:
    """Features of the vector that a model gives."""
    end = graph.nx.nodes[graph.end]
    own = next((end[name] for name in ("logits_dim", "num_classes", "dim_out") if end[name] is not None), None)
    return own or (2 * graph.dim if end["pool"] == "first_mean" and not end["pooler"] else graph.dim)
