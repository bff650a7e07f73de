"""What clients set, replace and load goes to where the model reads it, or is refused."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

import xt_blocks.x_transformers as x
from blockdsl.errors import UserError

from .programs import SIZES, TOKENS, language_model, vectors


class Adapter(nn.Module):
    """A layer with something added."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.more = nn.Linear(base.in_features, base.out_features, bias=False)  # type: ignore[arg-type]

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return self.base(y) + self.more(y)


# Layers ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["to_q", "to_k", "to_v"])
def test_a_replaced_projection_is_used_trained_and_saved(part: str) -> None:
    stack, y = x.Decoder(**SIZES, attn_kv_heads=1).eval(), vectors(1, 5, 32)
    attention = stack.layers[0][1]
    parts = {name: getattr(attention, name).weight.detach().clone() for name in ("to_q", "to_k", "to_v")}
    before = stack(y)
    adapter = Adapter(getattr(attention, part))
    nn.init.zeros_(adapter.more.weight)
    setattr(attention, part, adapter)
    assert torch.allclose(stack(y), before, atol=1e-6)
    nn.init.normal_(adapter.more.weight)
    other = copy.deepcopy(stack)
    assert not torch.allclose(stack(y), before, atol=1e-4)
    stack(y).sum().backward()
    assert adapter.more.weight.grad is not None
    assert adapter.base.weight.grad is not None  # type: ignore[union-attr]
    for name, weight in parts.items():
        now = getattr(attention, name)
        assert torch.equal(now.base.weight if name == part else now.weight, weight)
    nn.init.zeros_(adapter.more.weight)
    other.load_state_dict(stack.state_dict())
    assert torch.allclose(other(y), before, atol=1e-6)


def test_a_projection_of_cross_attention_is_replaced() -> None:
    stack, y, context = x.CrossAttender(dim=32, depth=1, heads=2).eval(), vectors(1, 5, 32), vectors(1, 7, 32)
    before = stack(y, context=context)
    stack.layers[0][1].to_v = nn.Linear(32, 128, bias=False)
    assert not torch.allclose(stack(y, context=context), before, atol=1e-4)


def test_a_frozen_base_stays_frozen() -> None:
    attention = x.Encoder(**SIZES).layers[0][1]
    attention.to_q = Adapter(attention.to_q.requires_grad_(False))
    assert not attention.to_q.base.weight.requires_grad
    assert attention.to_k.weight.requires_grad


def test_values_that_are_keys_cannot_be_replaced() -> None:
    attention = x.Encoder(**SIZES, attn_shared_kv=True).layers[0][1]
    with pytest.raises(AttributeError, match="to_v is not a part of to_qkv"):
        attention.to_v = nn.Linear(32, 128)


def test_norms_and_residuals_are_replaced() -> None:
    stack, y = x.Encoder(**SIZES).eval(), vectors(1, 5, 32)
    out = [stack(y)]
    stack.layers[0][0][0] = nn.Identity()
    out.append(stack(y))
    stack.layers[1][2] = _Doubled()
    out.append(stack(y))
    stack.layers[2] = nn.ModuleList([nn.ModuleList([None, None, None]), *stack.layers[2][1:]])
    out.append(stack(y))
    stack.final_norm = nn.Identity()
    out.append(stack(y))
    assert all(not torch.allclose(a, b, atol=1e-4) for a, b in pairwise(out))
    with pytest.raises(TypeError, match="one before the layer, none after the sum"):
        stack.layers[0][0][2] = nn.LayerNorm(32)


class _Doubled(nn.Module):
    def forward(self, update: torch.Tensor, stream: torch.Tensor) -> torch.Tensor:
        return 2 * update + stream


def test_layers_are_not_added_or_removed() -> None:
    stack = x.Encoder(**SIZES)
    for change in (
        lambda: stack.layers.append(nn.Identity()),
        lambda: stack.layers.pop(0),
        lambda: stack.layers.__delitem__(0),
        lambda: setattr(stack, "layers", nn.ModuleList()),
        lambda: setattr(stack, "rotary_pos_emb", nn.Identity()),
        lambda: stack.layers[:2].__setitem__(0, nn.Identity()),
        lambda: stack.layers[1][1].ff.insert(0, nn.Identity()),
        lambda: stack.layers[1][1].ff.__setitem__(0, nn.Identity()),
    ):
        with pytest.raises((TypeError, AttributeError), match=r"replace|read, not set"):
            change()


@pytest.mark.parametrize("options", [{}, {"ff_glu": True}, {"ff_post_act_ln": True}, {"ff_relu_squared": True}])
def test_the_steps_of_a_feedforward_give_its_output(options: dict[str, Any]) -> None:
    layer, y = x.Encoder(**SIZES, **options).eval().layers[1][1], vectors(2, 5, 32)
    assert torch.allclose(layer.ff(y), layer(y), atol=1e-6)
    layer.ff[-2] = nn.Dropout(1.0)
    layer.train()
    assert torch.allclose(layer(y), layer.to_out.bias.expand(2, 5, 32))


def test_dropout_of_attention_is_found_by_its_type() -> None:
    stack, y = x.Encoder(**SIZES, attn_dropout=0.5).train(), vectors(1, 5, 32)
    assert not torch.equal(stack(y), stack(y))
    for module in stack.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    assert torch.equal(stack(y), stack.eval()(y))


# Models ------------------------------------------------------------------------------------------------------------------


def test_a_norm_set_on_a_model_is_the_stacks() -> None:
    model = language_model(x)
    model.norm = nn.Identity()
    assert isinstance(model.attn_layers.norm, nn.Identity)
    images = x.ViTransformerWrapper(image_size=16, patch_size=8, attn_layers=x.Encoder(**SIZES))
    images.norm = nn.Identity()
    assert isinstance(images.attn_layers.norm, nn.Identity)


def test_parts_of_an_image_model_are_replaced() -> None:
    model = x.ViTransformerWrapper(image_size=16, patch_size=8, num_classes=3, attn_layers=x.Encoder(**SIZES)).eval()
    img = vectors(2, 3, 16, 16)
    seen = [model(img)]
    for name, part in (
        ("patch_to_embedding", nn.Linear(192, 32)),
        ("pos_embedding", nn.Parameter(torch.randn(1, 4, 32))),
        ("mlp_head", nn.Linear(32, 3)),
        ("dropout", nn.Dropout(1.0)),
    ):
        setattr(model, name, part)
        assert getattr(model, name) is part
        seen.append(model.train()(img))
    assert all(not torch.allclose(a, b, atol=1e-4) for a, b in pairwise(seen))


def test_without_classes_images_become_a_mean() -> None:
    model = x.ViTransformerWrapper(image_size=16, patch_size=8, attn_layers=x.Encoder(**SIZES)).eval()
    img = vectors(2, 3, 16, 16)
    assert torch.equal(model(img), model(img, return_embeddings=True).mean(dim=1))


def test_positions_count_from_the_first_place() -> None:
    model = language_model(x).eval()
    real = torch.arange(12).expand(2, -1) >= 4
    counted = model(TOKENS, mask=real, pos=torch.arange(12))
    assert torch.equal(model(TOKENS, mask=real), counted)
    started = model(TOKENS, seq_start_pos=torch.tensor([4, 4]))
    assert torch.allclose(started[:, 4:], model(TOKENS[:, 4:]), atol=1e-5)


def test_positions_in_place_of_the_models_own_are_counted_while_decoding() -> None:
    class Waves(nn.Module):
        def forward(self, y: torch.Tensor, pos: torch.Tensor) -> torch.Tensor:
            return (pos[..., None] * torch.arange(1, 33) / 40).sin()

    model = language_model(x).eval()
    model.pos_emb = Waves()
    writer = x.AutoregressiveWrapper(model)
    with_cache = writer.generate(TOKENS[:, :3], 6, temperature=0.0)
    assert torch.equal(with_cache, writer.generate(TOKENS[:, :3], 6, temperature=0.0, cache_kv=False))


def test_another_table_of_tokens() -> None:
    model = language_model(x)
    with pytest.raises(ValueError, match="from 0 to 31"):
        model(TOKENS + 8)
    model.token_emb.emb = nn.Embedding(40, 32)
    assert model(TOKENS + 8).shape == (2, 12, 32)
    with pytest.raises(TypeError, match="set token_emb for another module"):
        model.token_emb.emb = nn.Embedding(40, 32, padding_idx=0)


# Weights of x-transformers -------------------------------------------------------------------------------------------------


def test_their_weights_load_by_load_state_dict() -> None:
    theirs: Any = pytest.importorskip("x_transformers")
    told = theirs.AutoregressiveWrapper(language_model(theirs)).eval()

    class Client(nn.Module):
        def __init__(self, package: Any) -> None:
            super().__init__()
            self.writer, self.encoder = package.AutoregressiveWrapper(language_model(package)), package.Encoder(**SIZES)

    client, there = Client(x).eval(), Client(theirs).eval()
    missing, unexpected = client.load_state_dict(there.state_dict(), strict=False)
    assert not missing
    assert not unexpected
    y = vectors(1, 5, 32)
    assert torch.allclose(client.encoder(y), there.encoder(y), atol=1e-5)
    assert torch.allclose(client.writer.net(TOKENS), there.writer.net(TOKENS), atol=1e-4)
    part = {name: value for name, value in told.state_dict().items() if "to_logits" not in name}
    with pytest.raises(UserError, match=r"missing: to_logits\.weight"):
        client.writer.load_state_dict(part, strict=False)


def test_our_own_weights_load_as_ever() -> None:
    a, b = language_model(x).eval(), language_model(x).eval()
    b.load_state_dict(a.state_dict())
    assert torch.equal(a(TOKENS), b(TOKENS))
    with pytest.raises(RuntimeError, match="Missing key"):
        b.load_state_dict({})


# Nets of clients' own ------------------------------------------------------------------------------------------------------


class _Around(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.max_seq_len = model, model.max_seq_len

    def forward(self, y: torch.Tensor, **kwargs: Any) -> Any:
        return self.model(y, **kwargs)


def test_a_net_of_a_clients_own_gives_what_the_model_in_it_gives() -> None:
    model = language_model(x, max_seq_len=8).eval()
    alone, around = x.AutoregressiveWrapper(model), x.AutoregressiveWrapper(_Around(model), ignore_index=-100)
    tokens = TOKENS[:, :9]
    mask = torch.arange(9).expand(2, -1) < torch.tensor([[9], [6]])
    for read in ({}, {"mask": mask}, {"prepend_embeds": vectors(2, 2, 32)}, {"lens": torch.tensor([9, 6])}):
        assert torch.allclose(around(tokens, **read), alone(tokens, **read), atol=1e-6)
    for prompts in (tokens[:, :3], tokens[0, :3], [tokens[0, :3], tokens[1, :5]]):
        expected = alone.generate(prompts, 9, temperature=0.0, eos_token=5)
        assert torch.equal(around.generate(prompts, 9, temperature=0.0, eos_token=5), expected)
    assert torch.equal(around(tokens, return_outputs=True)[1][0], alone(tokens, return_outputs=True)[1][0])
    with pytest.raises(TypeError, match="compile the net itself"):
        around.generate(tokens, 2, compile=True)
    with pytest.raises(ValueError, match="seq_len must be a whole number"):
        around.generate(tokens, -1)


def test_a_net_of_vectors_of_a_clients_own() -> None:
    model = x.ContinuousTransformerWrapper(dim_in=4, dim_out=4, max_seq_len=6, attn_layers=x.Decoder(**SIZES)).eval()
    for options in ({}, {"use_l1_loss": True}, {"loss_fn": nn.HuberLoss(reduction="none")}):
        alone = x.ContinuousAutoregressiveWrapper(model, **options)
        around = x.ContinuousAutoregressiveWrapper(_Around(model), **options)
        y, mask = vectors(2, 7, 4), torch.arange(7).expand(2, -1) < torch.tensor([[7], [4]])
        for read in ({}, {"mask": mask}, {"lens": torch.tensor([7, 4])}):
            assert torch.allclose(around(y, **read), alone(y, **read), atol=1e-6)
        for start in (y[:, :3], y[0, :3]):
            assert torch.allclose(around.generate(start, 8), alone.generate(start, 8), atol=1e-5)


@pytest.mark.parametrize("wrapper", [x.AutoregressiveWrapper, x.ContinuousAutoregressiveWrapper])
def test_a_net_without_a_length_is_refused(wrapper: Any) -> None:
    with pytest.raises(TypeError, match="module with a max_seq_len"):
        wrapper(nn.Linear(3, 3))


# Numbers and settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"rel_pos_bias": True}, {"attn_sparse_topk": 3}, {"attn_num_mem_kv": 2}])
def test_scores_are_masked_as_what_the_softmax_reads(options: dict[str, Any]) -> None:
    _, seen = language_model(x, options).eval()(TOKENS, return_intermediates=True)
    for one in seen.attn_intermediates:
        assert torch.allclose(one.pre_softmax_attn.softmax(dim=-1), one.post_softmax_attn, atol=1e-6)
        assert (one.pre_softmax_attn < -1e30).any()


def test_a_method_is_not_replaced_by_a_module() -> None:
    stack = x.Encoder(**SIZES)
    for owner, name in ((stack.layers[0][1], "attend"), (stack, "forward"), (language_model(x), "forward")):
        with pytest.raises(AttributeError, match="a method here"):
            setattr(owner, name, nn.Identity())


def test_the_window_is_the_nets() -> None:
    wrapper = x.AutoregressiveWrapper(language_model(x))
    wrapper.max_seq_len = 4
    with pytest.raises(ValueError, match="max_seq_len was set to 4"):
        wrapper.generate(TOKENS[:, :2], 3)
    wrapper.net.max_seq_len = 4
    assert wrapper.generate(TOKENS[:, :2], 6).shape == (2, 6)


def test_a_threshold_of_top_p_is_told() -> None:
    wrapper = x.AutoregressiveWrapper(language_model(x))
    with pytest.warns(UserWarning, match="keeps the probability 0.9; releases such as 1.10"):
        wrapper.generate(TOKENS[:, :2], 1, filter_logits_fn="top_p", filter_thres=0.9)
