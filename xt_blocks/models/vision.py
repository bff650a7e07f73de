"""Images in, classes out: a sequence of patches before a stack, the mean of its outputs after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from blockdsl.registry.keywords import parameters, spells
from blockdsl.registry.norms import embedding_norm
from blockdsl.registry.options import by_name
from blockdsl.registry.tokens import IMAGE_OPTIONS, pair

from ..blocks.aliases import names_of_wrappers
from ..blocks.embedding import Embedding
from ..blocks.linear import apply
from ..blocks.norms import norm
from ..kernels.compat import uncompiled
from ..kernels.tensors import as_weights, check_tensor
from ..runtime.drawn import Drawn
from ..runtime.pretrained import Pretrained, the_graph
from ..runtime.stack import Stack
from .keywords import names_nearest

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from blockdsl import BlockGraph
    from blockdsl.signatures import ImageKeywords

Size = int | tuple[int, int]


class PatchEmbedding(nn.Module):
    """Patches of an image as vectors: their pixels, normed, mapped to `dim` features and normed again.

    The norm on both sides of the linear layer is Dual PatchNorm (Kumar et al., arXiv:2302.01327).

    Args:
        patch: height and width of a patch.
        channels: colours of a pixel.
        dim: features of the stream.
    """

    def __init__(self, patch: tuple[int, int], channels: int, dim: int) -> None:
        super().__init__()
        self.patch = patch
        pixels = patch[0] * patch[1] * channels
        self.norm_in = nn.LayerNorm(pixels)
        self.project = nn.Linear(pixels, dim)
        self.norm_out = nn.LayerNorm(dim)

    def forward(self, img: Tensor) -> Tensor:
        """`img: (batch, channels, height, width)` → (batch, patches, dim), row by row from the top left."""
        return self.norm_out(apply(self.project, self.norm_in(patches(img, self.patch))))


def patches(img: Tensor, patch: tuple[int, int]) -> Tensor:
    """`img: (batch, channels, height, width)` → (batch, patches, pixels), each patch's row by row and channels last."""
    height, width = patch
    batch, channels, rows, columns = *img.shape[:2], img.shape[2] // height, img.shape[3] // width
    tiles = img.reshape(batch, channels, rows, height, columns, width)
    return tiles.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # b (rows columns) (height width channels)


class ViTransformerWrapper(Drawn, Pretrained, nn.Module):
    """A stack over the patches of an image: the vision transformer (Dosovitskiy et al., arXiv:2010.11929).

    Args:
        image_size: height and width of the images, a number or (height, width).
        patch_size: the same of a patch; patches tile the image.
        attn_layers: the stack, an Encoder, a Decoder or a result of `lower`.
        channels: colours of a pixel.
        num_classes: how many classes there are; None: the model gives embeddings.
        post_emb_norm: a LayerNorm of the embedded patches.
        emb_dropout: dropout of the embedded patches.
        num_register_tokens: learned tokens beside the patches, where a stack can put what belongs to no patch
            (Darcet et al., arXiv:2309.16588).

    Attributes:
        graph: the whole model's BlockGraph.
        num_patches: of an image.

    Raises:
        TypeError: attn_layers is no stack, or an argument is unknown; the message names the nearest.
        UserError: a value is out of range, or the patches do not tile the image.
        GraphError: the stack needs a context, or no patch can see the registers.
    """

    @names_nearest
    @spells(parameters(by_name(IMAGE_OPTIONS)))
    def __init__(
        self, *, image_size: Size, patch_size: Size, attn_layers: Stack, **options: Unpack[ImageKeywords]
    ) -> None:
        super().__init__()
        if not isinstance(uncompiled(attn_layers), Stack):
            raise TypeError(f"attn_layers must be a stack, as Encoder(...) is, not {type(attn_layers).__name__}")
        self.graph: BlockGraph = attn_layers.graph.with_images(image_size, patch_size, **options)
        names_of_wrappers(self)
        start, end = self.graph.nx.nodes[self.graph.start], self.graph.nx.nodes[self.graph.end]
        patch, registers, num_classes = pair(start["patch_size"]), start["num_register_tokens"], end["num_classes"]
        dim = attn_layers.dim
        self.image, self.channels = pair(start["image_size"]), start["channels"]
        self.num_patches = self.graph.patches
        self.patch_emb = PatchEmbedding(patch, self.channels, dim)
        self.pos_emb = Embedding(self.num_patches, dim, std=1.0)  # as large as the normed patches
        self.post_emb_norm = norm(embedding_norm(end) if start["post_emb_norm"] else None, dim)
        self.emb_dropout = nn.Dropout(start["emb_dropout"])
        self.registers = nn.Parameter(torch.randn(registers, dim)) if registers else None
        self.attn_layers = attn_layers
        self.to_classes = None if num_classes is None else nn.Linear(dim, num_classes)

    @classmethod
    def from_graphs(cls, graphs: Mapping[str, BlockGraph], **arguments: Any) -> Self:
        graph = the_graph(graphs, cls, reads="images")
        return cls(attn_layers=Stack(graph.stack_alone()), **graph.model_options(), **arguments)

    @property
    def pattern(self) -> str:
        """The canonical text of the stack's pattern."""
        return self.graph.pattern

    def forward(
        self, img: Tensor, return_embeddings: bool = False, return_logits_and_embeddings: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """
        Args:
            img: (batch, channels, height, width)
            return_embeddings: the patches' embeddings in place of logits.
            return_logits_and_embeddings: both.

        Returns:
            (batch, num_classes) logits, or (batch, patches, dim) embeddings: those of a model without classes always.

        Raises:
            ValueError: the image has another shape, or logits are asked of a model without classes.
        """
        check_tensor("img", img)
        if img.ndim != 4 or img.shape[1:] != (self.channels, *self.image):
            wanted = ", ".join(map(str, (self.channels, *self.image)))
            raise ValueError(f"img must be (batch, {wanted}), not {tuple(img.shape)}")
        if not img.is_floating_point():
            raise ValueError(f"img must be floating point, such as img / 255 for bytes, not {img.dtype}")
        if return_embeddings and return_logits_and_embeddings:
            raise ValueError("return_embeddings and return_logits_and_embeddings are both set; give one")
        if return_logits_and_embeddings and self.to_classes is None:
            raise ValueError("the model has no logits: it was made without num_classes")
        embedded = self.attn_layers(self._stream(as_weights(img, self)))[:, : self.num_patches]
        if return_embeddings or self.to_classes is None:
            return embedded
        logits = apply(self.to_classes, embedded.mean(dim=1))
        return (logits, embedded) if return_logits_and_embeddings else logits

    def _stream(self, img: Tensor) -> Tensor:
        """(batch, patches + registers, dim)"""
        places = torch.arange(self.num_patches, device=img.device, dtype=torch.int64)
        embedded = self.emb_dropout(self.post_emb_norm(self.patch_emb(img) + self.pos_emb(places)))
        if self.registers is None:
            return embedded
        return torch.cat((embedded, self.registers.expand(img.shape[0], -1, -1)), dim=1)
