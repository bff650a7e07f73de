"""MaskGIT: masking, losses against hand computation, decoding steps with a net whose logits are known."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from xt_blocks import Decoder, Encoder, NonAutoregressiveWrapper, TransformerWrapper
from xt_blocks.blocks.subset import random_subset
from xt_blocks.generation.masking import SCHEDULES, corrupted, masked_at_random, schedule_of
from xt_blocks.generation.nonautoregressive import Losses

SIZES: dict[str, Any] = {"dim": 12, "heads": 2, "attn_dim_head": 6, "depth": 1}
TOKENS, LENGTH, MASK = 11, 8, 10


def net(**kwargs: Any) -> TransformerWrapper:
    stack = kwargs.pop("attn_layers", None) or Encoder(**SIZES)
    return TransformerWrapper(num_tokens=TOKENS, max_seq_len=LENGTH, attn_layers=stack, **kwargs)


def critic() -> TransformerWrapper:
    return net(logits_dim=1)


def maskgit(**kwargs: Any) -> NonAutoregressiveWrapper:
    return NonAutoregressiveWrapper(kwargs.pop("net", None) or net(), mask_id=MASK, **kwargs).eval()


def tokens(batch: int = 4) -> Tensor:
    return torch.randint(0, MASK, (batch, LENGTH))


# Masking -----------------------------------------------------------------------------------------------------------


def test_schedules_fall_from_all_to_none() -> None:
    times = torch.tensor([0, 1 / 3, 0.5, 1])
    assert SCHEDULES["linear"](times).tolist() == pytest.approx([1, 2 / 3, 0.5, 0])
    assert SCHEDULES["cosine"](times).tolist() == pytest.approx([1, math.cos(math.pi / 6), 0.5**0.5, 0], abs=1e-6)


def test_a_schedule_is_a_name_or_a_callable_that_maps_times_to_shares() -> None:
    def squared(t: Tensor) -> Tensor:
        return (1 - t) ** 2

    assert schedule_of(squared) is squared
    with pytest.raises(ValueError, match="schedule must be 'linear' or 'cosine' or a callable, not 'cubic'"):
        maskgit(schedule="cubic")
    with pytest.raises(ValueError, match=r"schedule must give shares from 0 to 1; .* gave \[2.0, 1.75, 1.5, 1.25, 1.0"):
        maskgit(schedule=lambda t: 2 - t)
    with pytest.raises(ValueError, match=r"tensors both; five times gave 0.5"):
        maskgit(schedule=lambda t: 0.5)


def test_a_random_subset_has_so_many_of_the_places_and_each_as_often() -> None:
    among = torch.tensor([[True] * 6, [False, True, False, True, True, False]]).repeat(3000, 1)
    count = torch.tensor([4, 2]).repeat(3000)
    chosen = random_subset(among, count)
    assert torch.equal(chosen.sum(1), count)
    assert not chosen[~among].any()
    often = chosen.reshape(3000, 2, 6).float().mean(0)
    torch.testing.assert_close(often[0], torch.full((6,), 4 / 6), rtol=0, atol=0.04)
    torch.testing.assert_close(often[1][among[1]], torch.full((3,), 2 / 3), rtol=0, atol=0.04)


def test_each_row_is_masked_at_a_time_of_its_own() -> None:
    real = torch.tensor([[True] * 8, [True] * 4 + [False] * 4]).repeat(4000, 1)
    masked = masked_at_random(real, SCHEDULES["linear"])
    assert not masked[~real].any()
    counts = masked.sum(1).reshape(4000, 2)
    # ceil(share * real) of a uniform share is uniform
    for column, most in ((0, 8), (1, 4)):
        often = counts[:, column].bincount(minlength=most + 1).float() / 4000
        torch.testing.assert_close(often, torch.tensor([0.0] + [1 / most] * most), rtol=0, atol=0.04)


def test_at_least_one_token_of_a_row_is_masked_and_none_of_an_empty_one() -> None:
    real = torch.tensor([[True] * 4, [False] * 4])
    assert masked_at_random(real, lambda t: 0 * t).sum(1).tolist() == [1, 0]


def test_corrupted_tokens_are_masks_and_in_half_of_the_rows_kept_or_random_ones() -> None:
    x = torch.randint(0, 5, (4000, 20))
    masked = torch.rand(4000, 20) < 0.5
    out = corrupted(x, masked, mask_id=2, num_tokens=6, keep=0.3, replace=0.4)
    assert torch.equal(out[~masked], x[~masked])
    by_row = [(out[i][masked[i]], x[i][masked[i]]) for i in range(4000)]
    whole = sum(bool((o == 2).all()) for o, _ in by_row) / 4000
    assert whole == pytest.approx(0.25, abs=0.04)  # the rows in which nothing is kept or replaced
    hidden = (out[masked] == 2).float().mean().item()
    # what was 2 and is kept looks masked too; a random token is never 2
    assert hidden == pytest.approx(1 - 0.15 * 4 / 5 - 0.2, abs=0.02)
    replaced = corrupted(x, masked, mask_id=2, num_tokens=6, keep=0.0, replace=1.0)[masked]
    often = replaced.bincount(minlength=6).float() / len(replaced)
    torch.testing.assert_close(often, torch.tensor([0.1, 0.1, 0.5, 0.1, 0.1, 0.1]), rtol=0, atol=0.03)
    assert torch.equal(corrupted(x, masked, 2, 6, 0.0, 0.0), x.masked_fill(masked, 2))


# Training ----------------------------------------------------------------------------------------------------------


class Known(TransformerWrapper):
    """A net with logits of our own; it keeps what it was called with."""

    def __init__(self, logits: Tensor, **kwargs: Any) -> None:
        super().__init__(num_tokens=TOKENS, max_seq_len=LENGTH, attn_layers=Encoder(**SIZES), **kwargs)
        self.logits = nn.Parameter(logits)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, **kwargs: Any) -> Any:
        self.seen.append(x)
        logits = self.logits.expand(*x.shape, -1)
        return (logits, torch.zeros(*x.shape, 12)) if kwargs.get("return_logits_and_embeddings") else logits


def test_the_loss_is_cross_entropy_of_the_masked_tokens() -> None:
    model = maskgit(net=Known(torch.randn(LENGTH, TOKENS)), no_replace_prob=0.0, random_token_prob=0.0)
    x = tokens()
    losses = model(x)
    masked = model.net.seen[0] == MASK
    logp = model.net.logits.log_softmax(-1)
    by_hand = -torch.stack([logp[i, x[b, i]] for b, i in masked.nonzero().tolist()]).mean()
    torch.testing.assert_close(losses.loss, by_hand)
    assert losses == Losses(losses.loss, losses.generator_loss, None)
    assert losses.loss is losses.generator_loss


def test_padding_is_neither_masked_nor_counted() -> None:
    model = maskgit(net=Known(torch.randn(LENGTH, TOKENS)), schedule=lambda t: 0 * t + 1)
    x = tokens(1)
    mask = torch.arange(LENGTH)[None] < 5
    logp = model.net.logits.log_softmax(-1)
    torch.testing.assert_close(model(x, mask=mask).loss, -logp[range(5), x[0, :5]].mean())
    assert torch.equal(model.net.seen[0][:, 5:], x[:, 5:])
    nothing = model(x, mask=torch.zeros(1, LENGTH, dtype=torch.bool)).loss
    assert nothing.item() == 0


class Judge(Known):
    """A critic whose score of a token is in a table."""

    def forward(self, x: Tensor, **kwargs: Any) -> Any:
        self.seen.append(x)
        return self.logits[x][..., None]


def judge(scores: Tensor | None = None) -> Judge:
    return Judge(torch.randn(TOKENS) if scores is None else scores, logits_dim=1)


def test_the_critics_loss_is_whether_a_token_was_made_up() -> None:
    table = torch.randn(LENGTH, TOKENS)
    table[:, 0] += 2
    critic = judge()
    model = maskgit(net=Known(table), token_critic=critic, critic_loss_weight=0.5)
    x = tokens(64)
    mask = torch.rand(x.shape) < 0.9
    losses = model(x, mask=mask, generator_sample_temperature=1.0)
    (guess,) = critic.seen
    assert torch.equal(guess[~mask], x[~mask])
    wrong = guess != x
    assert wrong.any()
    p = critic.logits[guess].sigmoid()
    by_hand = -torch.where(wrong, p, 1 - p).log()[mask].mean()
    torch.testing.assert_close(losses.critic_loss, by_hand)
    torch.testing.assert_close(losses.loss, losses.generator_loss + 0.5 * by_hand)
    assert (guess != MASK).all()


def test_made_up_tokens_are_drawn_at_the_temperature() -> None:
    table = torch.randn(LENGTH, TOKENS)
    critic = judge()
    model = maskgit(net=Known(table), token_critic=critic, schedule=lambda t: 0 * t + 1)
    model(tokens(3), generator_sample_temperature=0.0)
    assert (critic.seen[0] == table[:, :MASK].argmax(-1)).all()
    model(tokens(20000), generator_sample_temperature=2.0)
    often = torch.stack([critic.seen[1][:, i].bincount(minlength=MASK) for i in range(LENGTH)]) / 20000
    torch.testing.assert_close(often, (table[:, :MASK] / 2).softmax(-1), rtol=0, atol=0.02)


@pytest.mark.parametrize("own", [True, False])
def test_generator_and_critic_can_train_alone(own: bool) -> None:
    kwargs: dict[str, Any] = {"self_token_critic": True} if own else {"token_critic": critic()}
    model = maskgit(**kwargs)
    only = model(tokens(), only_train_generator=True)
    assert only.critic_loss is None
    assert only.loss is only.generator_loss
    only.loss.backward()
    judged = model.to_critic if own else model.token_critic
    assert all(p.grad is None for p in judged.parameters())
    model.zero_grad(set_to_none=True)
    only = model(tokens(), only_train_critic=True)
    assert only.generator_loss is None
    assert only.loss is only.critic_loss
    only.loss.backward()
    assert all(p.grad is not None for p in judged.parameters())
    assert (model.net.token_emb.weight.grad is None) == (not own)
    assert model.net.to_logits.weight.grad is None


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"self_cond": True},
        {"self_token_critic": True},
        {"self_token_critic": True, "self_cond": True},
        {"critic": 1},
    ],
)
def test_every_parameter_trains(kwargs: dict[str, Any]) -> None:
    if kwargs == {"critic": 1}:
        kwargs = {"token_critic": critic()}
    model = maskgit(**kwargs).train()
    model(tokens(16)).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_rows_are_conditioned_on_a_first_step_or_on_the_null_vector() -> None:
    model = maskgit(self_cond=True, self_cond_train_prob=0.5, no_replace_prob=0.0)
    seen: list[dict[str, Any]] = []
    model.net.register_forward_hook(lambda m, args, kwargs, out: seen.append({"out": out, **kwargs}), with_kwargs=True)
    model(tokens(64))
    first, second = seen
    null = model.to_self_cond(model.null_embed)
    torch.testing.assert_close(first["sum_embeds"], null.expand(64, LENGTH, -1))
    assert not first["out"][1].requires_grad
    estimated = model.to_self_cond(first["out"][1])
    is_null = (second["sum_embeds"] - null).abs().amax((1, 2)) < 1e-5
    is_estimate = (second["sum_embeds"] - estimated).abs().amax((1, 2)) < 1e-5
    assert torch.equal(is_null, ~is_estimate)
    assert 16 < is_null.sum() < 48


def test_a_model_learns_what_it_is_shown() -> None:
    model = maskgit(steps=4, schedule="cosine").train()
    shown = torch.randint(0, MASK, (2, 1)).expand(2, LENGTH) + 0
    shown[0] = torch.arange(LENGTH)
    shown[1] = torch.arange(LENGTH).flip(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        model(shown.repeat(8, 1)).loss.backward()
        optimizer.step()
    made = model.generate(batch_size=12)
    assert sum(any(torch.equal(row, s) for s in shown) for row in made) >= 10


# Generation --------------------------------------------------------------------------------------------------------


def test_the_least_certain_are_masked_again_as_the_schedule_says() -> None:
    table = torch.zeros(LENGTH, TOKENS)
    table[range(LENGTH), range(LENGTH)] = torch.tensor([5.0, 1, 4, 2, 3, 8, 7, 6])  # how certain each place is
    table[:, MASK] = 20  # never generated
    model = maskgit(net=Known(table), steps=4)
    made = model.generate(start_temperature=0.0, noise_level_scale=0.0)
    assert made.tolist() == list(range(LENGTH))
    masked = [(seen[0] == MASK).nonzero().flatten().tolist() for seen in model.net.seen]
    assert masked == [list(range(8)), [0, 1, 2, 3, 4, 7], [1, 2, 3, 4], [1, 3]]


def test_a_critic_decides_what_is_masked_again() -> None:
    table = torch.zeros(LENGTH, TOKENS)
    table[range(LENGTH), range(LENGTH)] = 5.0
    critic = judge(torch.tensor([0.0, 7, 1, 6, 2, 5, 3, 4, 0, 0, 0]))  # higher: rather made up
    model = maskgit(net=Known(table), steps=4, token_critic=critic)
    model.generate(start_temperature=0.0, noise_level_scale=0.0)
    masked = [(seen[0] == MASK).nonzero().flatten().tolist() for seen in model.net.seen]
    assert masked == [list(range(8)), [1, 3, 4, 5, 6, 7], [1, 3, 5, 7], [1, 3]]


@pytest.mark.parametrize("again", [False, True])
def test_a_settled_token_is_masked_again_only_where_that_is_allowed(again: bool) -> None:
    critic = judge()
    model = maskgit(net=Known(torch.zeros(LENGTH, TOKENS)), token_critic=critic, can_mask_prev_unmasked=again)
    model.generate(batch_size=4, noise_level_scale=100.0, generator=torch.Generator().manual_seed(1))
    masked = torch.stack([seen == MASK for seen in model.net.seen])
    assert (masked[1:] & ~masked[:-1]).any() == again
    counts = [LENGTH - LENGTH * step // 18 - (LENGTH * step % 18 > 0) for step in range(18)]
    assert masked.sum(-1).tolist() == [[count] * 4 for count in counts]


def test_tokens_outside_the_likeliest_share_are_not_sampled() -> None:
    table = torch.randn(LENGTH, TOKENS)
    model = maskgit(net=Known(table), steps=2)
    made = model.generate(batch_size=500, start_temperature=100.0, filter_thres=0.7)  # ceil(0.3 * 11) = 4 tokens
    kept = table[:, :MASK].topk(4).indices
    for place in range(LENGTH):
        assert set(made[:, place].tolist()) == set(kept[place].tolist())


def test_the_temperature_falls_to_zero() -> None:
    table = torch.randn(LENGTH, TOKENS)
    made = maskgit(net=Known(table), steps=1).generate(batch_size=3, start_temperature=100.0)
    assert (made == table[:, :MASK].argmax(-1)).all()


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"schedule": "cosine"}, {"self_cond": True}, {"self_token_critic": True, "can_mask_prev_unmasked": True}],
)
def test_generation_is_reproducible_and_free_of_masks(kwargs: dict[str, Any]) -> None:
    model = maskgit(steps=5, **kwargs).train()
    model.net.attn_layers.eval()

    def made(batch_size: int | None = 3) -> Tensor:
        return model.generate(batch_size, generator=torch.Generator().manual_seed(3))

    assert made().shape == (3, LENGTH)
    assert made(None).shape == (LENGTH,)
    assert torch.equal(made(), made())
    assert not torch.equal(made(), model.generate(3, generator=torch.Generator().manual_seed(4)))
    state = torch.get_rng_state()
    assert (made(50) != MASK).all()
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert model.net.training
    assert not model.net.attn_layers.training


@pytest.mark.parametrize(
    "kwargs", [{}, {"self_cond": True}, {"self_token_critic": True}, {"token_critic": None, "schedule": "cosine"}]
)
def test_a_net_without_a_logit_for_the_mask_is_one_that_never_draws_it(kwargs: dict[str, Any]) -> None:
    if "token_critic" in kwargs:
        kwargs = kwargs | {"token_critic": critic()}
    short, full = (maskgit(net=net(logits_dim=dim), **copy.deepcopy(kwargs)) for dim in (TOKENS - 1, None))
    head = full.net.to_logits
    assert head is not None
    weights = short.state_dict()
    weight, bias = weights["net.to_logits.weight"], weights["net.to_logits.bias"]
    assert weight.shape == (TOKENS - 1, 12)
    weights |= {"net.to_logits.weight": torch.cat((weight, torch.zeros(1, 12)))}
    weights |= {"net.to_logits.bias": torch.cat((bias, torch.full((1,), -math.inf)))}
    full.load_state_dict(weights)
    x, losses = tokens(), []
    for model in (short, full):
        torch.manual_seed(5)
        losses.append(model(x))
        losses[-1].loss.backward()
    for ours, theirs in zip(*losses, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(short.net.token_emb.weight.grad, full.net.token_emb.weight.grad)
    assert short.net.to_logits is not None
    torch.testing.assert_close(short.net.to_logits.weight.grad, head.weight.grad[:-1])  # type: ignore[index]
    made = [model.generate(5, generator=torch.Generator().manual_seed(0)) for model in (short, full)]
    assert torch.equal(*made)
    assert (made[0] < MASK).all()
    everything = [
        model.generate(5, filter_thres=0.0, generator=torch.Generator().manual_seed(0)) for model in (short, full)
    ]
    assert torch.equal(*everything)


def test_a_net_without_a_logit_for_the_mask_is_not_to_predict_it() -> None:
    model = maskgit(net=net(logits_dim=TOKENS - 1))
    with pytest.raises(ValueError, match="the tokens have mask_id=10 among them, which the net gives no logit for"):
        model(torch.full((2, LENGTH), MASK))
    with pytest.raises(ValueError, match="net must give 11 logits per token, not 10: set logits_dim"):
        NonAutoregressiveWrapper(net(logits_dim=TOKENS - 1), mask_id=0)  # whose logit is there, and another's is not


def test_a_context_is_read_by_net_and_self_critic() -> None:
    own = net(attn_layers=Encoder(cross_attend=True, **SIZES))
    model = maskgit(net=own, self_token_critic=True, steps=3)
    context = torch.randn(2, 5, 12)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    assert model(tokens(2), context=context, context_mask=mask).loss.isfinite()
    made = [
        model.generate(2, generator=torch.Generator().manual_seed(0), context=c, context_mask=mask, start_temperature=0)
        for c in (context, context.masked_fill(~mask[..., None], 9.0), -context)
    ]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    beside = maskgit(net=own, token_critic=critic(), steps=2)
    assert beside.generate(2, context=context).shape == (2, LENGTH)


# The rest ----------------------------------------------------------------------------------------------------------


def test_copies_and_state_dicts_have_the_net_once() -> None:
    model = maskgit(self_token_critic=True, self_cond=True, schedule="cosine")
    names = [*model.state_dict()]
    assert sum(name.endswith("token_emb.weight") for name in names) == 1
    assert {"null_embed", "to_self_cond.weight", "to_critic.weight", "to_critic.bias"} <= {*names}
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        made = [m.generate(2, generator=torch.Generator().manual_seed(0)) for m in (model, other)]
        assert torch.equal(*made)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_runs_in_its_type(dtype: torch.dtype) -> None:
    model = maskgit(self_token_critic=True, self_cond=True, steps=3).to(dtype)
    model(tokens()).loss.backward()
    assert model.generate(2).shape == (2, LENGTH)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"mask_id": 11}, "mask_id=11 is not a token of the net, which has num_tokens=11"),
    ({"mask_id": -1}, "mask_id must be a whole number of at least 0, not -1"),
    ({"steps": 0}, "steps must be a whole number of at least 1, not 0"),
    ({"self_cond_train_prob": 1.5}, "self_cond_train_prob must be a number from 0 to 1|of at least 0"),
    ({"no_replace_prob": 0.6, "random_token_prob": 0.5}, "their sum is above 1"),
    ({"critic_loss_weight": -1}, "critic_loss_weight must be a number of at least 0, not -1"),
]


@pytest.mark.parametrize(("kwargs", "message"), WRONG)
def test_wrong_values_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NonAutoregressiveWrapper(net(), **({"mask_id": MASK} | kwargs))


def test_wrong_nets_are_refused() -> None:
    causal = net(attn_layers=Decoder(**SIZES))
    with pytest.raises(ValueError, match="net is causal, and a masked token is filled in from both sides"):
        maskgit(net=causal)
    with pytest.raises(ValueError, match="token_critic is causal"):
        maskgit(token_critic=causal)
    with pytest.raises(TypeError, match="net must be a TransformerWrapper, not Linear"):
        maskgit(net=nn.Linear(2, 2))
    with pytest.raises(ValueError, match="token_critic and self_token_critic are both set; give one"):
        maskgit(token_critic=critic(), self_token_critic=True)
    with pytest.raises(ValueError, match="token_critic must give 1 logit per token, not 11: set logits_dim"):
        maskgit(token_critic=net())
    with pytest.raises(ValueError, match="net must give 11 logits per token, not 3: set logits_dim"):
        maskgit(net=net(logits_dim=3))
    with pytest.raises(ValueError, match="net must give 11 logits per token, not none: set logits_dim"):
        maskgit(net=net(return_only_embed=True))
    other = TransformerWrapper(num_tokens=12, max_seq_len=LENGTH, logits_dim=1, attn_layers=Encoder(**SIZES))
    with pytest.raises(ValueError, match="token_critic has num_tokens=12, and the net has num_tokens=11"):
        maskgit(token_critic=other)
    with pytest.raises(TypeError, match=r"unknown argument 'stepps'; did you mean 'steps'\?"):
        maskgit(stepps=3)


def test_wrong_calls_are_refused() -> None:
    model = maskgit()
    with pytest.raises(ValueError, match=r"tokens must be \(batch, 8\), not \(2, 7\)"):
        model(tokens(2)[:, 1:])
    with pytest.raises(ValueError, match="there is no critic to train"):
        model(tokens(), only_train_critic=True)
    with pytest.raises(ValueError, match="both set; give one"):
        model(tokens(), only_train_critic=True, only_train_generator=True)
    with pytest.raises(ValueError, match="generator_sample_temperature must be a number of at least 0 or none, not -1"):
        model(tokens(), generator_sample_temperature=-1)
    with pytest.raises(ValueError, match=r"filter_thres must be a number of at least 0 and below 1, not 1.0"):
        model.generate(filter_thres=1.0)
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1 or none, not 0"):
        model.generate(batch_size=0)
