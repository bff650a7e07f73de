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


@pytest.mark.parametrize("normed", [True, False])
def test_the_class_token_goes_first_and_registers_after_it(normed: bool) -> None:
    model = vision_model(class_token=True, num_register_tokens=3, post_emb_norm=normed, patch_norm=False)
    seen: list[torch.Tensor] = []
    model.attn_layers.register_forward_hook(lambda module, args, out: seen.extend((args[0], out)))
    img = torch.randn(2, 2, 4, 6)
    out = model(img, return_embeddings=True)
    kernel = model.patch_emb.project.weight.unflatten(1, (2, 3, 2)).permute(0, 3, 1, 2)
    patches = torch.nn.functional.conv2d(img, kernel, model.patch_emb.project.bias, stride=(2, 3))
    tokens = torch.cat((model.class_token.expand(2, 1, 12), patches.flatten(2).mT), 1) + model.pos_emb.weight
    if normed:
        tokens = torch.nn.functional.layer_norm(tokens, (12,))
    stream, given = seen
    torch.testing.assert_close(stream[:, [0, 4, 5, 6, 7]], tokens)
    assert torch.equal(stream[1, 1:4], model.registers)
    assert torch.equal(out, given[:, [0, 4, 5, 6, 7]])


@pytest.mark.parametrize("pooler", [True, False])
@pytest.mark.parametrize("pool", ["mean", "first", "first_mean"])
def test_the_vector_of_an_image(pool: str, pooler: bool) -> None:
    model = vision_model(class_token=True, pool=pool, pooler=pooler, num_classes=None, dim_out=7)
    img = torch.randn(3, 2, 4, 6)
    embedded = model(img, return_embeddings=True)
    assert embedded.shape == (3, 5, 12)
    mean = (embedded[:, 1] + embedded[:, 2] + embedded[:, 3] + embedded[:, 4]) / 4
    vector = {"mean": mean, "first": embedded[:, 0], "first_mean": torch.cat((embedded[:, 0], mean), 1)}[pool]
    if pooler:
        vector = torch.tanh(vector @ model.pooler.weight.T + model.pooler.bias)
    expected = vector @ model.project_out.weight.T + model.project_out.bias
    torch.testing.assert_close(model(img), expected)
    torch.testing.assert_close(model(img, return_logits_and_embeddings=True), (expected, embedded))


def test_a_learned_query_pools() -> None:
    options = {"pool": "attention", "pool_heads": 3, "pool_inner": 7, "pool_activation": "relu", "num_classes": None}
    model = vision_model(class_token=True, **options).double()
    img = torch.randn(2, 2, 4, 6, dtype=torch.float64)
    embedded, pool = model(img, return_embeddings=True), model.pool.attention
    w = {name: value.normal_() for name, value in pool.state_dict().items()}
    keys, values = (embedded @ w["attention.to_kv.weight"].T + w["attention.to_kv.bias"]).chunk(2, -1)
    query = w["query"][0] @ w["attention.to_q.weight"].T + w["attention.to_q.bias"]
    vectors = []
    for row in range(2):
        heads = []
        for head in (slice(0, 4), slice(4, 8), slice(8, 12)):
            powers = (keys[row, :, head] @ query[head] / 2).exp()
            heads.append(powers / powers.sum() @ values[row, :, head])
        seen = torch.cat(heads) @ w["attention.output.to_out.weight"].T + w["attention.output.to_out.bias"]
        normed = torch.nn.functional.layer_norm(seen, (12,), w["norm.weight"], w["norm.bias"])
        hidden = (normed @ w["feedforward.to_hidden.weight"].T + w["feedforward.to_hidden.bias"]).clamp(min=0)
        vectors.append(seen + hidden @ w["feedforward.to_out.weight"].T + w["feedforward.to_out.bias"])
    torch.testing.assert_close(model(img), torch.stack(vectors))


def test_masked_patches_are_the_mask_token() -> None:
    model = vision_model(class_token=True, mask_token=True)
    img = torch.randn(2, 2, 4, 6)
    masked = torch.tensor([[False, True, False, True], [False] * 4])
    changed = img.clone()
    changed[0, :, :, 3:] = torch.randn(2, 4, 3)  # the right half of the first, which is masked
    out = model(img, masked=masked)
    torch.testing.assert_close(out, model(changed, masked=masked))
    assert torch.equal(out[1], model(img)[1])
    assert not torch.allclose(out[0], model(img)[0])
    seen: list[torch.Tensor] = []
    model.attn_layers.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    model(img, masked=masked)
    torch.testing.assert_close(seen[0][0, 2], model.mask_token[0] + model.pos_emb.weight[2])
    with pytest.raises(ValueError, match=r"masked must be bool \(2, 4\), not torch.int64 \(2, 4\)"):
        model(img, masked=masked.long())
    with pytest.raises(ValueError, match="masked is given, but the model was made without mask_token"):
        vision_model()(img, masked=masked)


def cubic(x: float, a: float) -> float:
    """Keys' cubic convolution, doi:10.1109/TASSP.1981.1163711."""
    x = abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    return near if x < 1 else a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("columns", [3, 6])
def test_positions_of_another_size_are_interpolated(columns: int, antialias: bool) -> None:
    """Along one axis, against the sum over learned places, those beyond the edge repeated or left out."""
    model = vision_model(image_size=(2, 12), class_token=True, pos_antialias=antialias).double()
    seen: list[torch.Tensor] = []
    model.post_emb_norm.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    img = torch.zeros(1, 2, 2, 3 * columns, dtype=torch.float64)
    model(img, interpolate_pos=True)
    found = seen[0][0] - torch.cat((model.class_token, model.patch_emb(img)[0]))
    torch.testing.assert_close(found[0], model.pos_emb.weight[0])
    ratio = 4 / columns
    for column in range(columns):
        centre = (column + 0.5) * ratio - 0.5
        places = range(-4, 8)
        if antialias:
            stretch = max(ratio, 1.0)
            weights = {i: cubic((i - centre) / stretch, -0.5) for i in places if 0 <= i < 4}
            total = sum(weights.values())
            expected = sum(weight / total * model.pos_emb.weight[1 + i] for i, weight in weights.items())
        else:
            expected = sum(cubic(i - centre, -0.75) * model.pos_emb.weight[1 + min(max(i, 0), 3)] for i in places)
        torch.testing.assert_close(found[1 + column], expected)


def test_another_size_is_taken_when_asked_for() -> None:
    model = vision_model(class_token=True)
    img = torch.randn(2, 2, 6, 3)
    assert model(img, interpolate_pos=True, return_embeddings=True).shape == (2, 4, 12)
    own = torch.randn(2, 2, 4, 6)
    assert torch.equal(model(own, interpolate_pos=True), model(own))
    message = r"img must be \(batch, 2, 4, 6\), not \(2, 2, 6, 3\); interpolate_pos=True takes images of other sizes"
    with pytest.raises(ValueError, match=message):
        model(img)
    with pytest.raises(ValueError, match="patches of 2 x 3 do not tile an image of 6 x 4"):
        model(torch.randn(2, 2, 6, 4), interpolate_pos=True)
    with pytest.raises(ValueError, match=r"img must be \(batch, 2, height, width\), not \(2, 3, 6, 3\)"):
        model(torch.randn(2, 3, 6, 3), interpolate_pos=True)


def test_what_fills_no_patch_is_cropped() -> None:
    model, img = vision_model(image_size=(5, 8), crop=True), torch.randn(2, 2, 5, 8)
    whole = vision_model()
    whole.load_state_dict(model.state_dict())
    assert torch.equal(model(img), whole(img[..., :4, :6]))
    assert model(torch.randn(1, 2, 3, 7), interpolate_pos=True).shape == (1, 5)


def test_a_model_without_classes_gives_embeddings() -> None:
    model = vision_model(num_classes=None)
    img = torch.randn(1, 2, 4, 6)
    assert model(img).shape == (1, 4, 12)
    assert torch.equal(model(img), model(img, return_embeddings=True))
    with pytest.raises(ValueError, match="the model has no logits: it was made without num_classes"):
        model(img, return_logits_and_embeddings=True)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"num_register_tokens": 2, "post_emb_norm": True},
        {"stack": Decoder},
        {"num_classes": None},
        {"class_token": True, "pool": "first_mean", "pooler": True, "patch_norm": False, "num_register_tokens": 1},
        {"pool": "attention", "pool_heads": 2, "num_classes": None, "dim_out": 3},
    ],
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
