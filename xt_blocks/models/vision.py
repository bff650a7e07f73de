"""Images in, classes out: a sequence of patches before a stack, one vector of its outputs after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.registry.keywords import parameters, spells
from blockdsl.registry.norms import embedding_norm, pool_norm
from blockdsl.registry.options import by_name
from blockdsl.registry.pools import pool_attention, pool_of, vectors_of
from blockdsl.registry.tokens import IMAGE_OPTIONS, not_tiled, pair

from ..blocks.aliases import names_of_wrappers
from ..blocks.dropout import FeatureDropout
from ..blocks.embedding import Embedding
from ..blocks.linear import apply
from ..blocks.norms import norm
from ..kernels.compat import uncompiled
from ..kernels.tensors import as_weights, check_tensor
from ..runtime.drawn import Drawn
from ..runtime.pretrained import Pretrained, the_graph
from ..runtime.stack import Stack
from .keywords import names_nearest
from .pooling import AttentionPool, Pool

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from blockdsl import BlockGraph
    from blockdsl.signatures import ImageKeywords

Size = int | tuple[int, int]


class PatchEmbedding(nn.Module):
    """Patches of an image as vectors: their pixels, normed, mapped to `dim` features and normed again.

    The norm on both sides of the linear layer is Dual PatchNorm (Kumar et al., arXiv:2302.01327). Without it, this is
    the convolution of other vision transformers, whose stride is its kernel's size.

    Args:
        patch: height and width of a patch.
        channels: colours of a pixel.
        dim: features of the stream.
        normed: whether there are norms.
        bias: whether the linear layer has one.
    """

    def __init__(self, patch: tuple[int, int], channels: int, dim: int, normed: bool = True, bias: bool = True) -> None:
        super().__init__()
        self.patch = patch
        pixels = patch[0] * patch[1] * channels
        self.norm_in = nn.LayerNorm(pixels) if normed else nn.Identity()
        self.project = nn.Linear(pixels, dim, bias)
        self.norm_out = nn.LayerNorm(dim) if normed else nn.Identity()

    def forward(self, img: Tensor) -> Tensor:
        """`img: (batch, channels, height, width)` → (batch, patches, dim), row by row from the top left."""
        embedded: Tensor = self.norm_out(apply(self.project, self.norm_in(patches(img, self.patch))))
        return embedded


def patches(img: Tensor, patch: tuple[int, int]) -> Tensor:
    """`img: (batch, channels, height, width)` → (batch, patches, pixels), each patch's row by row and channels last.

    Pixels that fill no patch are left out.
    """
    height, width = patch
    batch, channels, rows, columns = *img.shape[:2], img.shape[2] // height, img.shape[3] // width
    tiles = img[..., : rows * height, : columns * width].reshape(batch, channels, rows, height, columns, width)
    return tiles.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # b (rows columns) (height width channels)


class ViTransformerWrapper(Drawn, Pretrained, nn.Module):
    """A stack over the patches of an image: the vision transformer (Dosovitskiy et al., arXiv:2010.11929).

        image ── patches ── (class token, patches) + positions ── registers beside ── stack ── embeddings
        embeddings ── pool ── pooler ── classes or vectors

    Args:
        image_size: height and width of the images, a number or (height, width).
        patch_size: the same of a patch; patches tile the image.
        attn_layers: the stack, an Encoder, a Decoder or a result of `lower`.
        channels: colours of a pixel.
        crop: pixels at the right and the bottom that fill no patch are left out, as a convolution does.
        patch_norm: LayerNorm before and after the linear layer of a patch (arXiv:2302.01327).
        patch_bias: whether that linear layer has a bias.
        class_token: a learned token in front of the patches, with a position of its own.
        mask_token: a learned vector that `masked` puts in the place of patches (BEiT, arXiv:2106.08254).
        pos_antialias: positions of images of another size are interpolated with antialiasing.
        num_register_tokens: learned tokens beside the patches, where a stack can put what belongs to no patch
            (Darcet et al., arXiv:2309.16588): after the class token, or after the patches where there is none.
        pool: the vector of an image: the "mean" of its patches' embeddings, the "first" token's, both ("first_mean",
            DINOv2, arXiv:2304.07193), or that of "attention" (arXiv:2106.04560). None: the mean where it is asked for
            classes, vectors or a pooler; else the model gives all embeddings.
        pool_heads, pool_inner, pool_activation: of the attention that pools, and of the feedforward after it.
        pooler: a linear layer and tanh of the vector (BERT, arXiv:1810.04805).
        num_classes: how many classes there are, scored from the vector.
        dim_out: features of a linear layer of the vector, as CLIP has (arXiv:2103.00020); not with num_classes.
        dim_out_bias: whether it has a bias.
        post_emb_norm: a LayerNorm of the embedded patches and the class token.
        emb_dropout: dropout of them.

    Attributes:
        graph: the whole model's BlockGraph.
        num_patches: of an image.

    Raises:
        TypeError: attn_layers is no stack, or an argument is unknown; the message names the nearest.
        UserError: a value is out of range, arguments clash, or the patches do not tile the image.
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
        patch, registers, dim = pair(start["patch_size"]), start["num_register_tokens"], attn_layers.dim
        self.image, self.channels, self.crop = pair(start["image_size"]), start["channels"], start["crop"]
        self.patch, self.antialias = patch, start["pos_antialias"]
        self.num_patches = self.graph.patches
        self.patch_emb = PatchEmbedding(patch, self.channels, dim, start["patch_norm"], start["patch_bias"])
        std = 1.0 if start["patch_norm"] else 0.02  # as large as normed patches; or as in arXiv:2010.11929
        self.pos_emb = Embedding(self.graph.places, dim, std)
        self.class_token = nn.Parameter(torch.randn(1, dim) * std) if start["class_token"] else None
        self.mask_token = nn.Parameter(torch.randn(1, dim) * std) if start["mask_token"] else None
        self.post_emb_norm = norm(embedding_norm(end) if start["post_emb_norm"] else None, dim)
        self.emb_dropout = FeatureDropout(start["emb_dropout"])
        self.registers = nn.Parameter(torch.randn(registers, dim)) if registers else None
        self.attn_layers = attn_layers
        self.pool = self._pool(end, dim)
        self.pools = pool_of(end) is not None
        features = 2 * dim if self.pool.how == "first_mean" else dim
        self.pooler = nn.Linear(features, dim) if end["pooler"] else None
        features, num_classes, dim_out = dim if end["pooler"] else features, end["num_classes"], end["dim_out"]
        self.to_classes = None if num_classes is None else nn.Linear(features, num_classes)
        self.project_out = nn.Identity() if dim_out is None else nn.Linear(features, dim_out, end["dim_out_bias"])

    def _pool(self, end: Mapping[str, Any], dim: int) -> Pool:
        how, skipped = pool_of(end) or "mean", int(self.class_token is not None)
        if how != "attention":
            return Pool(how, skipped=skipped)
        return Pool(how, AttentionPool(dim, norm(pool_norm(end), dim), pool_attention(end, dim), vectors_of(end)))

    @classmethod
    def from_graphs(cls, graphs: Mapping[str, BlockGraph], **arguments: Any) -> Self:
        graph = the_graph(graphs, cls, reads="images")
        return cls(attn_layers=Stack(graph.stack_alone()), **graph.model_options(), **arguments)

    @property
    def pattern(self) -> str:
        """The canonical text of the stack's pattern."""
        return self.graph.pattern

    def forward(
        self,
        img: Tensor,
        return_embeddings: bool = False,
        return_logits_and_embeddings: bool = False,
        masked: Tensor | None = None,
        interpolate_pos: bool = False,
        condition: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """
        Args:
            img: (batch, channels, height, width)
            return_embeddings: those of the class token and the patches in place of the image's vector.
            return_logits_and_embeddings: both.
            masked: (batch, patches) bool, True = the mask token in place of the patch.
            interpolate_pos: the image may have another size than the model's; positions are interpolated to its grid
                of patches, bicubically.
            condition: (batch, dim_condition), for adaptive norms and layer scales.

        Returns:
            (batch, num_classes) logits, (batch, dim_out) or (batch, dim) vectors; or the embeddings (batch, tokens,
            dim), those of a model that makes no vector always.

        Raises:
            ValueError: the image has another shape, or logits are asked of a model without classes.
        """
        self._check(img, interpolate_pos)
        if return_embeddings and return_logits_and_embeddings:
            raise ValueError("return_embeddings and return_logits_and_embeddings are both set; give one")
        pools = self.pools or self.to_classes is not None
        if return_logits_and_embeddings and not pools:
            raise ValueError("the model has no logits: it was made without num_classes")
        embedded = self._given(self.attn_layers(self._stream(as_weights(img, self), masked), condition=condition))
        if return_embeddings or not pools:
            return embedded
        out = self._out(embedded)
        return (out, embedded) if return_logits_and_embeddings else out

    def _check(self, img: Tensor, any_size: bool) -> None:
        check_tensor("img", img)
        fits = img.ndim == 4 and img.shape[1] == self.channels
        if not fits or not (any_size or img.shape[2:] == self.image):
            wanted = (
                f"{self.channels}, height, width" if any_size else ", ".join(map(str, (self.channels, *self.image)))
            )
            hint = "; interpolate_pos=True takes images of other sizes" if fits else ""
            raise ValueError(f"img must be (batch, {wanted}), not {tuple(img.shape)}{hint}")
        if any_size and (problem := not_tiled((img.shape[2], img.shape[3]), self.patch, self.crop)):
            raise ValueError(problem)
        if not img.is_floating_point():
            raise ValueError(f"img must be floating point, such as img / 255 for bytes, not {img.dtype}")

    def _out(self, embedded: Tensor) -> Tensor:
        """From `embedded: (batch, tokens, dim)`, the image's vector, or its classes."""
        vector: Tensor = self.pool(embedded)
        if self.pooler is not None:
            vector = apply(self.pooler, vector).tanh()
        return apply(self.project_out if self.to_classes is None else self.to_classes, vector)

    def _stream(self, img: Tensor, masked: Tensor | None) -> Tensor:
        """(batch, tokens + registers, dim)"""
        embedded = self.patch_emb(img)
        if masked is not None:
            embedded = self._masked(embedded, masked)
        if self.class_token is not None:
            embedded = torch.cat((self.class_token.expand(img.shape[0], -1, -1), embedded), dim=1)
        embedded = self.emb_dropout(self.post_emb_norm(embedded + self._positions(img)))
        if self.registers is None:
            return embedded
        registers = self.registers.expand(img.shape[0], -1, -1)
        place = embedded.shape[1] if self.class_token is None else 1
        return torch.cat((embedded[:, :place], registers, embedded[:, place:]), dim=1)

    def _given(self, stream: Tensor) -> Tensor:
        """What the stack made of `_stream`, without registers: (batch, tokens, dim)."""
        if self.registers is None:
            return stream
        count = len(self.registers)
        return stream[:, :-count] if self.class_token is None else torch.cat((stream[:, :1], stream[:, 1 + count :]), 1)

    def _masked(self, embedded: Tensor, masked: Tensor) -> Tensor:
        if self.mask_token is None:
            raise ValueError("masked is given, but the model was made without mask_token")
        if masked.dtype != torch.bool or masked.shape != embedded.shape[:2]:
            wanted = f"bool {tuple(embedded.shape[:2])}"
            raise ValueError(f"masked must be {wanted}, not {masked.dtype} {tuple(masked.shape)}")
        return torch.where(masked[..., None], self.mask_token.to(embedded.dtype), embedded)

    def _positions(self, img: Tensor) -> Tensor:
        """(tokens, dim), the positions of the class token and of the patches of an image of this size."""
        height, width = self.patch
        rows, columns = img.shape[2] // height, img.shape[3] // width
        learned = self.image[0] // height, self.image[1] // width
        first = int(self.class_token is not None)
        table: Tensor = self.pos_emb(torch.arange(first + self.num_patches, device=img.device, dtype=torch.int64))
        if (rows, columns) == learned:
            return table
        exact = table[first:].to(torch.promote_types(table.dtype, torch.float32))
        grid = exact.reshape(*learned, -1).permute(2, 0, 1)[None]
        grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=self.antialias)
        return torch.cat((table[:first], grid[0].flatten(1).T.to(table.dtype)))
