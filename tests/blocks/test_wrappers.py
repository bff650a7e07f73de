"""Tokens in, logits out; the training loss; generation."""

from __future__ import annotations

import copy
import pickle
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import blockdsl
import xt_blocks
from xt_blocks import AutoregressiveWrapper, Decoder, Encoder, TransformerWrapper, ViTransformerWrapper

from .variants import SIZES, VARIANTS, language_model, still_at_first, tokens


def test_logits_are_the_parts_put_together() -> None:
    model = language_model()
    x = tokens()
    assert model.pos_emb is not None
    assert model.to_logits is not None
    embedded = model.token_emb.weight[x] + model.pos_emb.embedding.weight[:7]
    hidden = model.attn_layers(embedded)
    torch.testing.assert_close(model(x), hidden @ model.to_logits.weight.T + model.to_logits.bias)
    torch.testing.assert_close(model(x, return_embeddings=True), hidden)


def test_tied_logits_use_the_embeddings_matrix() -> None:
    model = TransformerWrapper(num_tokens=17, max_seq_len=8, attn_layers=Decoder(depth=1, **SIZES), tie_embedding=True)
    x = tokens(seq=5)
    torch.testing.assert_close(model(x), model(x, return_embeddings=True) @ model.token_emb.weight.T / 24**0.5)
    assert sum(p.numel() for p in model.parameters()) == model.graph.parameters()


def test_a_state_dict_of_what_was_around_a_model_loads() -> None:
    """Of a wrapper of ours, of torch.compile, of data-parallel training, and of all three."""
    model, other, x = language_model(), language_model(), tokens()
    wrapped = AutoregressiveWrapper(model).state_dict()
    for around in ("", "module.", "_orig_mod.", "module._orig_mod."):
        with torch.no_grad():
            other.to_logits.weight.zero_()
        given = {around + name: value for name, value in wrapped.items()}
        names = [*given]
        other.load_state_dict(given)
        assert [*given] == names, "what is loaded is not changed"
        assert torch.equal(other(x), model(x))
    compiled = {f"_orig_mod.{name}": value for name, value in model.attn_layers.state_dict().items()}
    Decoder(depth=2, **SIZES).load_state_dict(compiled)
    images = ViTransformerWrapper(image_size=8, patch_size=4, attn_layers=Encoder(depth=1, **SIZES))
    images.load_state_dict({f"module.{name}": value for name, value in images.state_dict().items()})
    with pytest.raises(RuntimeError, match=r"(?s)Missing key.*Unexpected key\(s\) in state_dict: \"gpt\."):
        other.load_state_dict({f"gpt.{name}": value for name, value in model.state_dict().items()})


@pytest.mark.parametrize("how", [{"rotary_pos_emb": True}, {}])
def test_absolute_positions_give_way_to_rotary_ones(how: dict[str, bool]) -> None:
    model = language_model(**how)
    assert (model.pos_emb is None) == bool(how)
    assert (
        TransformerWrapper(
            num_tokens=17, max_seq_len=8, attn_layers=Decoder(depth=1, **SIZES), use_abs_pos_emb=False
        ).pos_emb
        is None
    )


def test_a_graph_with_tokens_lowers_to_the_same_model() -> None:
    settings = SIZES | {"num_tokens": 17, "max_seq_len": 16, "causal": True, "emb_dropout": 0.25, "tie_embedding": True}
    lowered = xt_blocks.lower(blockdsl.compile("(a f)*2", **settings))
    stack = Decoder(depth=2, **SIZES)
    built = TransformerWrapper(num_tokens=17, max_seq_len=16, attn_layers=stack, emb_dropout=0.25, tie_embedding=True)
    assert isinstance(lowered, TransformerWrapper)
    assert lowered.graph == built.graph
    assert [*lowered.state_dict()] == [*built.state_dict()]
    assert lowered.emb_dropout.p == 0.25
    again = xt_blocks.lower(blockdsl.BlockGraph.from_json(lowered.graph.to_json()))
    again.load_state_dict(lowered.state_dict())
    x = tokens()
    assert torch.equal(again.eval()(x), lowered.eval()(x))


@pytest.mark.parametrize("settings", [{}, {"rotary_pos_emb": True}, {"shift_tokens": 1}])
@pytest.mark.parametrize("causal", [True, False])
def test_left_and_right_padding_change_nothing(settings: dict[str, Any], causal: bool) -> None:
    stack = (Decoder if causal else Encoder)(depth=2, **SIZES, **settings)
    model = TransformerWrapper(num_tokens=17, max_seq_len=16, attn_layers=stack).eval()
    x, junk = tokens(1, 6), tokens(1, 8)
    alone = model(x)
    for left in (0, 3, 8):
        padded = torch.cat((junk[:, :left], x, junk[:, left:]), dim=1)
        mask = torch.zeros(1, 14, dtype=torch.bool)
        mask[:, left : left + 6] = True
        out = model(padded, mask=mask)[:, left : left + 6]
        torch.testing.assert_close(out, alone, rtol=1e-4, atol=1e-5)


def test_a_hole_in_the_mask_moves_no_position() -> None:
    model = TransformerWrapper(num_tokens=17, max_seq_len=16, attn_layers=Encoder(depth=1, **SIZES)).eval()
    x = tokens(1, 6)
    mask = torch.tensor([[True, True, False, True, True, True]])
    seen: list[Tensor] = []
    assert model.pos_emb is not None
    model.pos_emb.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(x, mask=mask)
    assert seen[0].tolist() == [[0, 1, 2, 3, 4, 5]]


def test_wrong_tokens_are_refused() -> None:
    model = language_model(max_seq_len=8)
    with pytest.raises(ValueError, match="the sequence has 9 tokens; max_seq_len is 8"):
        model(tokens(1, 9))
    with pytest.raises(ValueError, match=r"tokens must be whole numbers \(batch, seq\), not torch.float32 \(1, 3\)"):
        model(torch.randn(1, 3))
    with pytest.raises(ValueError, match=r"tokens must be whole numbers \(batch, seq\), not torch.bool \(1, 3\)"):
        model(tokens(1, 3).bool())
    for wrong in (17, -1):
        with pytest.raises(
            ValueError, match=f"tokens are from 0 to 16; these go from {min(wrong, 3)} to {max(wrong, 3)}"
        ):
            model(torch.tensor([[3, wrong]]))
    with pytest.raises(TypeError, match="attn_layers must be a stack"):
        TransformerWrapper(num_tokens=17, max_seq_len=8, attn_layers=torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    assert language_model(max_seq_len=8, rotary_pos_emb=True)(tokens(1, 9)).shape == (1, 9, 17)


def test_embeddings_start_as_the_seed_documents_users_expect() -> None:
    stack = Decoder(dim=64, depth=1, heads=1)
    model = TransformerWrapper(num_tokens=3000, max_seq_len=2000, attn_layers=stack)
    assert model.token_emb.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.02)
    assert model.pos_emb is not None
    assert model.pos_emb.embedding.weight.std().item() == pytest.approx(64**-0.5, rel=0.02)


# Training ----------------------------------------------------------------------------------------------------------


def test_the_loss_is_cross_entropy_of_the_next_token() -> None:
    model = language_model()
    x = tokens()
    logp = model(x[:, :-1]).log_softmax(-1)
    by_hand = -torch.stack([logp[b, t, x[b, t + 1]] for b in range(2) for t in range(6)]).mean()
    torch.testing.assert_close(AutoregressiveWrapper(model)(x), by_hand)


def test_ignored_targets_count_for_nothing_and_never_reach_the_embedding() -> None:
    model = language_model()
    x = tokens(1, 7)
    ignored = x.clone()
    ignored[0, 4:] = -100
    torch.testing.assert_close(AutoregressiveWrapper(model)(ignored), AutoregressiveWrapper(model)(x[:, :4]))


@pytest.mark.parametrize("left", [0, 3])
def test_padding_changes_no_loss(left: int) -> None:
    model = AutoregressiveWrapper(language_model())
    x = tokens(1, 6)
    padded = torch.full((1, 9), 3)
    padded[:, left : left + 6] = x
    mask = torch.zeros(1, 9, dtype=torch.bool)
    mask[:, left : left + 6] = True
    torch.testing.assert_close(model(padded, mask=mask), model(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"mask must be \(1, 9\), not"):
        model(padded, mask=mask[:, 1:])


def test_only_a_causal_model_is_trained_on_the_next_token() -> None:
    encoder = TransformerWrapper(num_tokens=17, max_seq_len=8, attn_layers=Encoder(depth=1, **SIZES))
    with pytest.raises(
        ValueError, match=r"the model sees later tokens: a0 \(self-attention\) is not causal; a Decoder is causal"
    ):
        AutoregressiveWrapper(encoder)
    with pytest.raises(ValueError, match=r"the model sees later tokens: a2 \(self-attention\) is not causal"):
        AutoregressiveWrapper(language_model(pattern="a f a(causal=false) f"))
    with pytest.raises(TypeError, match="net must be a model over tokens, as TransformerWrapper is, not Decoder"):
        AutoregressiveWrapper(Decoder(depth=1, **SIZES))  # type: ignore[arg-type]


def test_a_model_without_logits_is_not_trained_on_the_next_token() -> None:
    net = TransformerWrapper(
        num_tokens=17, max_seq_len=8, attn_layers=Decoder(depth=1, **SIZES), return_only_embed=True
    )
    with pytest.raises(ValueError, match="the model has no logits: return_only_embed is set"):
        AutoregressiveWrapper(net)


@pytest.mark.parametrize("trainer", [AutoregressiveWrapper, xt_blocks.XLAutoregressiveWrapper])
@pytest.mark.parametrize("logits_dim", [5, 18])
def test_a_model_with_other_logits_than_tokens_is_not_trained_on_the_next_token(logits_dim: int, trainer: Any) -> None:
    stack = Decoder(depth=1, **SIZES)
    around = {"num_tokens": 17, "max_seq_len": 8, "max_mem_len": 4}
    with pytest.raises(ValueError, match=f"logits_dim={logits_dim} gives no logit for each of the 17 tokens"):
        trainer(TransformerWrapper(attn_layers=stack, logits_dim=logits_dim, **around))
    trainer(TransformerWrapper(attn_layers=stack, logits_dim=17, **around))


def test_masks_context_and_images_of_another_type_are_refused() -> None:
    x, float_mask = tokens(2, 5), torch.ones(2, 5)
    model = AutoregressiveWrapper(language_model())
    with pytest.raises(ValueError, match=r"mask must be boolean, True = attend, not torch\.float32"):
        model(x, mask=float_mask)
    with pytest.raises(TypeError, match="mask must be a tensor, not list"):
        model.net(x, mask=[True] * 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"context must be floating point, not torch\.int64"):
        language_model(pattern="a c f")(x, context=torch.ones(2, 3, 24).long())
    vision = ViTransformerWrapper(image_size=8, patch_size=4, attn_layers=Encoder(dim=24, depth=1))
    with pytest.raises(ValueError, match=r"img must be floating point, such as img / 255 for bytes, not torch\.uint8"):
        vision(torch.zeros(1, 3, 8, 8).byte())


def test_a_loss_needs_a_token_to_see_and_one_to_predict() -> None:
    with pytest.raises(ValueError, match=r"tokens must be \(batch, 2 or more\), .* not \(2, 1\)"):
        AutoregressiveWrapper(language_model())(tokens(2, 1))


def test_tokens_may_be_int32() -> None:
    model, x = AutoregressiveWrapper(language_model()), tokens()
    assert torch.equal(model(x.int()), model(x))
    assert torch.equal(model.generate(x.int(), 4, temperature=0), model.generate(x, 4, temperature=0))


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_of_the_model_is_trained(name: str, tie: bool) -> None:
    pattern, settings = VARIANTS[name]
    stack = Decoder(pattern=pattern, **(SIZES | {"layer_dropout": 0.1} | settings))
    net = TransformerWrapper(num_tokens=17, max_seq_len=8, attn_layers=stack, emb_dropout=0.1, tie_embedding=tie)
    model = AutoregressiveWrapper(net).train()
    kwargs = {"context": torch.randn(4, 5, stack.graph.dim_context)} if stack.reads_context else {}
    model(tokens(4, 9), mask=torch.arange(9) < torch.tensor([[9], [9], [3], [0]]), **kwargs).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().sum() > 0 or still_at_first(name, parameter_name), parameter_name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("settings", [{}, {"rotary_pos_emb": True, "use_rmsnorm": True}, {"residual_attn": True}])
def test_a_model_trains_and_generates_in_its_own_type(settings: dict[str, Any], dtype: torch.dtype) -> None:
    net = language_model(**settings).to(dtype)
    model, x = AutoregressiveWrapper(net), tokens()
    assert net(x).dtype == dtype
    loss = model(x)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert loss.item() == pytest.approx(copy.deepcopy(model).double()(x).item(), rel=0.01)
    assert torch.equal(model.generate(x, 12, temperature=0), model.generate(x, 12, temperature=0))


def test_copies_of_a_trainer_are_equal_and_independent() -> None:
    stack = Decoder(pattern="(a@x f@y)*2", **SIZES)
    net = TransformerWrapper(num_tokens=17, max_seq_len=16, attn_layers=stack, tie_embedding=True)
    model, x = AutoregressiveWrapper(net), tokens()
    loss = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), loss)
        assert len([*other.parameters()]) == len([*model.parameters()])  # what was tied still is
        torch.nn.init.zeros_(other.net.token_emb.weight)
    assert torch.equal(model(x), loss)


class Recording(NamedTuple):
    """A model, and of each pass what it hides from self-attention, and the logits."""

    net: TransformerWrapper
    seen: list[Tensor]
    logits: list[Tensor]


def recording() -> Recording:
    stack = Decoder(depth=1, **SIZES)
    net = TransformerWrapper(num_tokens=17, max_seq_len=1000, attn_layers=stack, use_abs_pos_emb=False)
    record = Recording(net, [], [])

    def note(module: Any, args: Any, kwargs: dict[str, Any], logits: Tensor) -> None:
        if "self_attn_context_mask" in kwargs:
            record.seen.append(kwargs["self_attn_context_mask"])
        record.logits.append(logits)

    net.register_forward_hook(note, with_kwargs=True)
    return record


@pytest.mark.parametrize(("mask_prob", "hidden"), [(0.3, 30), (0.29, 28), (0.999, 99), (0.009, 0)])
def test_a_part_of_each_rows_tokens_is_forgotten_in_training(mask_prob: float, hidden: int) -> None:
    record = recording()
    model = AutoregressiveWrapper(record.net, mask_prob=mask_prob).train()
    x = tokens(3, 101)
    model(x)
    model(x)
    first, second = record.seen
    for seen in (first, second):
        assert seen.shape == (3, 100)
        assert (~seen).sum(dim=1).tolist() == [hidden] * 3  # int(100 * 0.29) is 28
        assert seen[:, 0].all()
    if hidden == 30:
        assert len({tuple(row.tolist()) for row in (*first, *second)}) == 6
    record.seen.clear()
    torch.testing.assert_close(model.eval()(x), AutoregressiveWrapper(record.net)(x))
    assert record.seen == []


@pytest.mark.parametrize("mask_prob", [0.95, 0])
def test_what_is_forgotten_is_not_seen(mask_prob: float) -> None:
    record = recording()
    model = AutoregressiveWrapper(record.net, mask_prob=mask_prob).train()
    x = tokens(1, 21)
    other = x.clone()
    other[0, 5] = (other[0, 5] + 1) % 17
    model(x)
    model(other)
    changed = (record.logits[0] != record.logits[1]).any(dim=-1)[0].nonzero()[:, 0].tolist()
    assert changed == ([5] if mask_prob else [*range(5, 20)])  # 19 of 20: only the first token is seen by others


def test_what_is_forgotten_is_drawn_evenly() -> None:
    record = recording()
    model = AutoregressiveWrapper(record.net, mask_prob=0.5).train()
    model(tokens(4000, 7))
    drawn = (~record.seen[0]).float().mean(dim=0).tolist()
    assert drawn == pytest.approx([0, 0.6, 0.6, 0.6, 0.6, 0.6], abs=0.04)  # 3 of 5


def test_of_a_padded_row_a_part_of_the_real_tokens_is_forgotten() -> None:
    record = recording()
    model = AutoregressiveWrapper(record.net, mask_prob=0.5).train()
    mask = torch.zeros(4, 11, dtype=torch.bool)
    mask[0, 5:] = mask[1, :6] = mask[2, 3:4] = True
    model(tokens(4, 11), mask=mask)
    hidden = ~record.seen[0]
    assert hidden.sum(dim=1).tolist() == [2, 3, 0, 0]  # of 5, 6, 1 and 0 that the model sees
    assert not hidden[0, :6].any()
    assert not hidden[1, 0]
    assert not hidden[1, 6:].any()


@pytest.mark.parametrize("mask_prob", [-0.1, 1.0, float("nan")])
def test_all_tokens_cannot_be_forgotten(mask_prob: float) -> None:
    with pytest.raises(ValueError, match="mask_prob must be a number of at least 0 and below 1"):
        AutoregressiveWrapper(language_model(), mask_prob=mask_prob)


@pytest.mark.parametrize("left", [False, True])
def test_prepended_embeddings_are_never_forgotten(left: bool) -> None:
    record = recording()
    model = AutoregressiveWrapper(record.net, mask_prob=0.95).train()
    x, front = tokens(1, 21), torch.randn(1, 3, 24)
    shown = {"mask": torch.arange(21)[None] >= 2} if left else {}
    first, front_too, other = 2 * left, front.clone(), x.clone()
    front_too[:, 0] += 1
    other[0, 9] = (other[0, 9] + 1) % 17
    for tokens_now, embeds in ((x, front), (x, front_too), (other, front)):
        model(tokens_now, prepend_embeds=embeds, **shown)
    assert record.seen[0].shape == (1, 20)
    assert (~record.seen[0]).sum() == int((20 - first) * 0.95)
    base, moved, told = record.logits
    assert (base != moved).any(dim=-1)[0, 3 + first :].all()  # every token sees all that is prepended
    changed = (base != told).any(dim=-1)[0].nonzero()[:, 0].tolist()
    assert changed == [12]
