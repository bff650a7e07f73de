"""Programs about images: patches embedded by hand, wrappers subclassed and their parts replaced, maps of features."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .programs import SIZES, TOKENS, language_model, program, vectors


def _patches(img: torch.Tensor, size: int) -> torch.Tensor:
    batch, channels, height, width = img.shape
    tiles = img.reshape(batch, channels, height // size, size, width // size, size)
    return tiles.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, channels * size * size)


@program
def replaces_the_patch_embedding(x: Any) -> None:
    """Subclasses the image model, with a linear layer and positions of its own and a `forward` that uses them."""

    class Scans(x.ViTransformerWrapper):  # type: ignore[misc]
        def __init__(self, channels: int, attn_layers: Any) -> None:
            super().__init__(image_size=16, patch_size=8, attn_layers=attn_layers, emb_dropout=0.1)
            self.patch_size = 8
            self.patch_to_embedding = nn.Linear(channels * 64, attn_layers.dim)
            self.pos_embedding = nn.Parameter(torch.randn(1, 4, attn_layers.dim))

        def forward(self, img: torch.Tensor) -> torch.Tensor:
            y = self.patch_to_embedding(_patches(img, self.patch_size))
            y = y + self.pos_embedding[:, : y.shape[1]]
            return self.norm(self.attn_layers(self.dropout(y)))

    model = Scans(5, x.Encoder(**SIZES))
    out = model(vectors(2, 5, 16, 16))
    assert out.shape == (2, 4, 32)
    out.sum().backward()
    assert model.patch_to_embedding.weight.grad is not None
    assert model.pos_embedding.grad is not None


@program
def moves_positions_to_another_size(x: Any) -> None:
    """Interpolates the positions of trained patches for larger images."""
    small = x.ViTransformerWrapper(image_size=16, patch_size=8, num_classes=3, attn_layers=x.Encoder(**SIZES))
    large = x.ViTransformerWrapper(image_size=32, patch_size=8, num_classes=3, attn_layers=x.Encoder(**SIZES))
    grid = small.pos_embedding.detach().reshape(1, 2, 2, 32).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(4, 4), mode="bilinear").flatten(2).transpose(1, 2)
    with torch.no_grad():
        large.pos_embedding.copy_(grid)
    assert torch.equal(large.pos_embedding.detach(), grid)
    assert large(vectors(2, 3, 32, 32)).shape == (2, 3)


@program
def classifies_with_registers(x: Any) -> None:
    model = x.ViTransformerWrapper(
        image_size=16,
        patch_size=8,
        channels=1,
        num_classes=1,
        num_register_tokens=2,
        post_emb_norm=True,
        attn_layers=x.Encoder(**SIZES, attn_flash=True),
    )
    assert model(vectors(2, 1, 16, 16)).shape == (2, 1)
    logits, embeds = model(vectors(2, 1, 16, 16), return_logits_and_embeddings=True)
    assert logits.shape == (2, 1)
    assert embeds.shape == (2, 4, 32)


@program
def swaps_the_classifier(x: Any) -> None:
    model = x.ViTransformerWrapper(image_size=16, patch_size=8, num_classes=10, attn_layers=x.Encoder(**SIZES))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.mlp_head = nn.Linear(32, 2)
    out = model(vectors(2, 3, 16, 16))
    assert out.shape == (2, 2)
    out.sum().backward()
    assert len([p for p in model.parameters() if p.grad is not None]) == 2


@program
def reads_maps_of_features(x: Any) -> None:
    encoder = x.Encoder(dim=32, depth=3, heads=2, rotary_pos_emb=False)
    _, seen = encoder(vectors(2, 16, 32), return_hiddens=True)
    maps = [h.transpose(1, 2).unflatten(2, (4, 4)) for h in seen.layer_hiddens]
    assert len(maps) == 7
    assert maps[-1].shape == (2, 32, 4, 4)


@program
def predicts_masked_patches(x: Any) -> None:
    """A joint embedding: encodes the visible patches, and predicts a moving average's patches."""
    from copy import deepcopy

    student = x.Encoder(**SIZES, attn_flash=True)
    teacher = deepcopy(student).requires_grad_(False)
    predictor = x.Decoder(**SIZES)
    y = vectors(2, 16, 32)
    with torch.no_grad():
        target = F.layer_norm(teacher(y), (32,))
    visible = student(y[:, :8])
    guess = predictor(torch.cat((visible, torch.zeros(2, 8, 32)), dim=1))[:, 8:]
    F.smooth_l1_loss(guess, target[:, 8:]).backward()
    with torch.no_grad():
        for own, new in zip(teacher.parameters(), student.parameters(), strict=True):
            own.mul_(0.99).add_(new, alpha=0.01)


@program
def decodes_slots_with_maps(x: Any) -> None:
    decoder = x.CrossAttender(**SIZES, ff_glu=True, ff_swish=True)
    out, seen = decoder(
        vectors(2, 9, 32), context=vectors(2, 4, 32), context_mask=torch.ones(2, 4).bool(), return_hiddens=True
    )
    assert out.shape == (2, 9, 32)
    assert seen.attn_intermediates[-1].post_softmax_attn.mean(dim=1).shape == (2, 9, 4)


@program
def fuses_two_kinds_of_tokens(x: Any) -> None:
    """Cross-attention layers alone, with the outputs of two of them side by side."""
    attend = x.CrossAttender(dim=32, depth=1, heads=2, attn_dropout=0.1, ff_dropout=0.1)
    genes, tiles = vectors(1, 3, 32), vectors(1, 20, 32)
    fused = torch.cat((attend(genes, context=tiles), attend(tiles, context=genes)), dim=1)
    assert fused.mean(dim=1).shape == (1, 32)


@program
def numbers_of_images_have_masks(x: Any) -> None:
    """A mask for each pair of queries and keys, by position in the call."""

    class Flipped(x.Encoder):  # type: ignore[misc]
        def forward(self, y: torch.Tensor, mask: Any = None, padding: Any = None) -> Any:
            return super().forward(
                y, None, None if padding is None else ~padding, None, None if mask is None else ~mask
            )

    encoder = Flipped(dim=32, depth=2, heads=2, ff_mult=2, pre_norm=True, attn_flash=True, ff_no_bias=True)
    hidden = torch.triu(torch.ones(5, 5), diagonal=1).bool()
    padding = torch.tensor([[False] * 5, [False] * 4 + [True]])
    assert encoder(vectors(2, 5, 32), hidden, padding).shape == (2, 5, 32)


@program
def builds_windows_from_layers(x: Any) -> None:
    attend = x.Attention(dim=32, heads=2, dim_head=16, dropout=0.1, flash=True, one_kv_head=True)
    feed, norm = x.FeedForward(dim=32, dropout=0.1), nn.LayerNorm(32)
    y = vectors(4, 6, 32)
    y = attend(norm(y)) + y
    assert (feed(y) + y).shape == (4, 6, 32)


@program
def captions_with_a_prefix(x: Any) -> None:
    decoder = x.AutoregressiveWrapper(language_model(x, max_seq_len=20))
    image = vectors(2, 4, 32)
    decoder(TOKENS, prepend_embeds=image).backward()
    assert decoder.generate(TOKENS[:, :2], 5, prepend_embeds=image).shape == (2, 5)


@program
def writes_formulas(x: Any) -> None:
    """An encoder of patches subclassed for images of any size up to a largest, and a decoder with a start token."""

    class Patches(nn.Module):
        def __init__(self, attn_layers: Any) -> None:
            super().__init__()
            assert isinstance(attn_layers, x.Encoder)
            self.embed = nn.Linear(64, attn_layers.dim)
            self.cls_token = nn.Parameter(torch.randn(1, 1, attn_layers.dim))
            self.attn_layers = attn_layers

        def forward(self, img: torch.Tensor) -> torch.Tensor:
            y = self.embed(_patches(img, 8))
            return self.attn_layers(torch.cat((self.cls_token.expand(len(y), -1, -1), y), dim=1))

    encoder = Patches(x.Encoder(**SIZES, attn_on_attn=True))
    decoder = x.AutoregressiveWrapper(
        language_model(x, {"cross_attend": True, "ff_glu": True, "attn_on_attn": True, "rel_pos_bias": False}),
        pad_value=0,
    )
    encoded = encoder(vectors(2, 1, 16, 24))
    decoder(TOKENS, context=encoded).backward()
    start = torch.LongTensor([1] * 2)[:, None]
    assert decoder.generate(start, seq_len=4, eos_token=2, context=encoded, temperature=0.3).shape[0] == 2


@program
def skips_the_models_constructor(x: Any) -> None:
    class Video(x.TransformerWrapper):  # type: ignore[misc]
        def __init__(self, attn_layers: Any) -> None:
            super(x.TransformerWrapper, self).__init__()
            self.attn_layers = attn_layers
            self.emb_dropout = nn.Dropout(0.1)
            self.classifier = nn.Linear(32, 5)

        def forward(self, frames: torch.Tensor, mask: Any = None, mems: Any = None, **kwargs: Any) -> torch.Tensor:
            y = self.attn_layers(self.emb_dropout(frames), mask=mask, mems=mems, **kwargs)
            return self.classifier(y.mean(dim=-2))

    assert Video(x.Encoder(**SIZES))(vectors(2, 6, 32)).shape == (2, 5)


@program
def continues_meshes_by_hand(x: Any) -> None:
    """Predicts the vertices of a mesh one by one, from intermediates of a first pass over a point cloud."""
    module = import_module(f"{x.__name__}.x_transformers")
    decoder = x.Decoder(**SIZES, attn_flash=True).eval()
    sequence = vectors(1, 4, 32)
    with torch.no_grad():
        _, cache = decoder(sequence, return_hiddens=True)
        assert isinstance(cache, module.LayerIntermediates)
        for _ in range(3):
            sequence = torch.cat((sequence, vectors(1, 1, 32)), dim=1)
            out, cache = decoder(sequence, cache=cache, return_hiddens=True)
            assert torch.allclose(out[:, -1], decoder(sequence)[:, -1], atol=1e-5)


@program
def distils_with_a_copy(x: Any) -> None:
    """Patterns of the teacher's attention and hidden states as targets of a smaller student."""
    teacher = x.Encoder(dim=32, depth=4, heads=2).eval().requires_grad_(False)
    student = x.Encoder(**SIZES)
    y = vectors(2, 6, 32)
    _, told = teacher(y, return_hiddens=True)
    _, seen = student(y, return_hiddens=True)
    loss = sum(F.mse_loss(a, b) for a, b in zip(seen.hiddens, told.hiddens[::2], strict=True))
    loss = loss + F.mse_loss(seen.attn_intermediates[0].post_softmax_attn, told.attn_intermediates[0].post_softmax_attn)
    loss.backward()
