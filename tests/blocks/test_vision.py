"""Images in, classes out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from xt_blocks import AttentionLayers, Decoder, Encoder, ViTransformerWrapper
from xt_blocks.models.vision import PatchEmbedding

SIZES = {"dim": 12, "heads": 2, "attn_dim_head": 6}


def vision_model(stack: type[AttentionLayers] = Encoder, **kwargs: Any) -> ViTransformerWrapper:
    sizes: dict[str, Any] = {"image_size": (4, 6), "patch_size": (2, 3), "channels": 2, "num_classes": 5}
    return ViTransformerWrapper(attn_layers=stack(depth=2, **SIZES), **(sizes | kwargs)).eval()


def test_a_patch_is_its_pixels_row_by_row_and_a_pixel_its_colours() -> None:
    embedding = PatchEmbedding((2, 3), 2, 12).eval()
    seen: list[torch.Tensor] = []
    embedding.norm_in.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    img = torch.arange(48.0).reshape(1, 2, 4, 6)  # colour c of the pixel in row y, column x is 24c + 6y + x
    embedding(img)
    first, second, third = [0, 24, 1, 25, 2, 26], [6, 30, 7, 31, 8, 32], [3, 27, 4, 28, 5, 29]
    assert seen[0][0, 0].tolist() == first + second
    assert seen[0][0, 1].tolist() == third + [v + 6 for v in third]  # to the right of the first
    assert seen[0][0, 2].tolist() == [v + 12 for v in first + second]  # below the first


def test_logits_are_the_parts_put_together() -> None:
    model = vision_model(post_emb_norm=True)
    torch.nn.init.normal_(model.post_emb_norm.weight)
    img = torch.randn(3, 2, 4, 6)
    stream = model.patch_emb(img) + model.pos_emb.weight
    embedded = model.attn_layers(torch.nn.functional.layer_norm(stream, (12,)) * model.post_emb_norm.weight)
    logits = embedded.mean(1) @ model.to_classes.weight.T + model.to_classes.bias
    torch.testing.assert_close(model(img), logits)
    torch.testing.assert_close(model(img, return_embeddings=True), embedded)
    both = model(img, return_logits_and_embeddings=True)
    torch.testing.assert_close(both, (logits, embedded))


def test_a_model_without_classes_gives_embeddings() -> None:
    model = vision_model(num_classes=None)
    img = torch.randn(1, 2, 4, 6)
    assert model(img).shape == (1, 4, 12)
    assert torch.equal(model(img), model(img, return_embeddings=True))
    with pytest.raises(ValueError, match="the model has no logits: it was made without num_classes"):
        model(img, return_logits_and_embeddings=True)


@pytest.mark.parametrize(
    "kwargs", [{}, {"num_register_tokens": 2, "post_emb_norm": True}, {"stack": Decoder}, {"num_classes": None}]
)
def test_every_parameter_trains(kwargs: dict[str, Any]) -> None:
    model = vision_model(**kwargs).train()
    out = model(torch.randn(2, 2, 4, 6))
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        rows = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad[None]
        assert (rows.abs().sum(1) > 0).all(), name


def test_registers_come_after_the_patches_and_are_not_given_out() -> None:
    model = vision_model(num_register_tokens=3)
    seen: list[torch.Tensor] = []
    model.attn_layers.register_forward_hook(lambda module, args, out: seen.extend((args[0], out)))
    img = torch.randn(2, 2, 4, 6)
    out = model(img, return_embeddings=True)
    assert seen[0].shape == (2, 7, 12)
    assert torch.equal(seen[0][1, 4:], model.registers)
    assert torch.equal(out, seen[1][:, :4])
    message = "register tokens come after the patches, and no patch of a causal stack sees them"
    with pytest.raises(ValueError, match=message):
        vision_model(Decoder, num_register_tokens=1)


def test_a_causal_stack_sees_the_patches_before() -> None:
    model = vision_model(Decoder)
    img = torch.randn(1, 2, 4, 6)
    changed = img.clone()
    changed[..., 2:, 3:] += torch.randn(2, 2, 3)  # the last patch, whose norm takes a constant out
    before, after = (model(i, return_embeddings=True) for i in (img, changed))
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])


def test_images_of_a_batch_do_not_affect_each_other() -> None:
    model = vision_model(num_register_tokens=1)
    img = torch.randn(3, 2, 4, 6)
    torch.testing.assert_close(model(img)[1:2], model(img[1:2]))


def test_dropout_of_the_patches_in_training_only() -> None:
    model = vision_model(emb_dropout=0.5, num_classes=None)
    img = torch.randn(1, 2, 4, 6)
    assert torch.equal(model(img), model(img))
    assert not torch.equal(model.train()(img), model(img))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_runs_in_its_type_and_copies_are_alike(dtype: torch.dtype) -> None:
    model = vision_model().to(dtype)
    img = torch.randn(2, 2, 4, 6, dtype=dtype)
    assert model(img).dtype == dtype
    assert torch.equal(copy.deepcopy(model)(img), model(img))
    other = vision_model().to(dtype)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(img), model(img))


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"image_size": 5}, ValueError, "patches of 2 x 3 do not tile an image of 5 x 5"),
    ({"image_size": (4, 5)}, ValueError, "patches of 2 x 3 do not tile an image of 4 x 5"),
    ({"image_size": 0}, ValueError, "image_size must be a whole number of at least 1, or two of them or none, not 0"),
    (
        {"patch_size": (2, 3, 4)},
        ValueError,
        r"patch_size must be a whole number of at least 1, or two of them or none, not \(2, 3, 4\)",
    ),
    ({"channels": 0}, ValueError, "channels must be a whole number of at least 1, not 0"),
    ({"num_classes": 0}, ValueError, "num_classes must be a whole number of at least 1 or none, not 0"),
    ({"emb_dropout": 1.0}, ValueError, "emb_dropout must be a number of at least 0 and below 1, not 1.0"),
    ({"dropout": 0.1}, TypeError, r"ViTransformerWrapper\(\) got an unknown argument 'dropout'; .*'emb_dropout'\?"),
    ({"num_clases": 3}, TypeError, r"got an unknown argument 'num_clases'; did you mean 'num_classes'\?"),
]


@pytest.mark.parametrize(("kwargs", "error", "message"), WRONG)
def test_wrong_arguments_are_refused(kwargs: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        vision_model(**kwargs)


def test_wrong_stacks_and_images_are_refused() -> None:
    with pytest.raises(TypeError, match=r"attn_layers must be a stack, as Encoder\(...\) is, not Linear"):
        ViTransformerWrapper(image_size=4, patch_size=2, attn_layers=torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reads images, and has no context to give to cross-attention"):
        ViTransformerWrapper(image_size=4, patch_size=2, attn_layers=Encoder(depth=1, cross_attend=True, **SIZES))
    model = vision_model()
    with pytest.raises(ValueError, match=r"img must be \(batch, 2, 4, 6\), not \(1, 3, 4, 6\)"):
        model(torch.randn(1, 3, 4, 6))
    with pytest.raises(ValueError, match=r"img must be \(batch, 2, 4, 6\), not \(2, 4, 6\)"):
        model(torch.randn(2, 4, 6))
    with pytest.raises(ValueError, match="both set; give one"):
        model(torch.randn(1, 2, 4, 6), return_embeddings=True, return_logits_and_embeddings=True)
