"""Tokens generated all at once and refined: MaskGIT, with a token critic and self-conditioning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.registry.keywords import spells
from blockdsl.registry.options import Option, by_name, checked_values

from ..blocks.linear import apply
from ..kernels.compat import uncompiled
from ..kernels.cross_entropy import Target
from ..kernels.masks import check_mask
from ..kernels.tensors import whole_numbers
from ..models.inputs import ContextInputs
from ..models.keywords import keywords_of, names_nearest
from ..models.transformer import TransformerWrapper, loss_of
from ..runtime.auxiliary import auxiliary_losses
from ..runtime.drawn import Drawn
from ..runtime.evaluation import evaluating
from .masking import Schedule, corrupted, masked_at_random, schedule_of
from .sampling import keep_top_k

if TYPE_CHECKING:
    from typing_extensions import Unpack

_OPTIONS = by_name(
    (
        Option("mask_id", int, None, "the token that stands for a masked one", least=0),
        Option("steps", int, 18, "decoding steps", least=1),
        Option("self_cond_train_prob", float, 0.75, "share of rows", least=0, most=1),
        Option("no_replace_prob", float, 0.15, "share of masked tokens that stay", least=0, most=1),
        Option("random_token_prob", float, 0.1, "share of masked tokens that become random", least=0, most=1),
        Option("critic_loss_weight", float, 1.0, "factor of the critic's loss", least=0),
        Option("generator_sample_temperature", float, None, "of what the critic judges", least=0, optional=True),
        Option("batch_size", int, None, "rows to generate", least=1, optional=True),
        Option("start_temperature", float, 1.0, "of the first step", least=0),
        Option("filter_thres", float, 0.7, "share of the vocabulary that is not sampled", least=0, below=1),
        Option("noise_level_scale", float, 1.0, "noise of the choice of places", least=0),
    )
)


_IGNORED = -100  # the target where nothing is predicted


class Losses(NamedTuple):
    """What one call of the wrapper returns.

    Attributes:
        loss: what to train on; in training with what the nets' blocks add.
        generator_loss: mean cross-entropy of the masked tokens, in nats; None where only the critic trains.
        critic_loss: mean binary cross-entropy of the critic, in nats; None without one.
    """

    loss: Tensor
    generator_loss: Tensor | None
    critic_loss: Tensor | None


class NonAutoregressiveWrapper(Drawn, nn.Module):
    """Trains a model to fill in masked tokens, and generates by filling in a sequence of nothing but masks.

    MaskGIT (Chang et al., arXiv:2202.04200): each step fills in every masked token and masks the least certain ones
    again, as many as the schedule says. With a critic (Lezama et al., arXiv:2209.04439) the certain ones are those
    that the critic takes for real. With self-conditioning (Chen et al., arXiv:2208.04202) a step is given the
    embeddings of the one before.

    Args:
        net: the model, over an Encoder.
        mask_id: the token that stands for a masked one; one of the net's own that no text has, such as num_tokens - 1.
            That one needs no logit: the net's logits_dim may be num_tokens - 1.
        steps: decoding steps.
        self_cond: condition each step on the embeddings of the one before.
        self_cond_train_prob: share of the rows that are trained with such embeddings; the others get a learned vector
            in their place, as the first step does.
        no_replace_prob, random_token_prob: shares of the masked tokens that stay as they are and that become random
            ones, in half of the rows each; see `masking.corrupted`.
        schedule: the share of tokens that are masked at a time from 0 to 1: "linear", "cosine" or a callable,
            times (n,) → shares (n,).
        can_mask_prev_unmasked: a token filled in by an earlier step may be masked again.
        token_critic: a model over the same tokens with one logit per token, high for one that was made up.
        self_token_critic: the net's own embeddings and a linear layer instead of such a model.
        critic_loss_weight: of the critic's loss in the sum.

    Raises:
        TypeError: net or token_critic is not a model over tokens, or an argument is unknown.
        ValueError: the net is causal or has no max_seq_len, mask_id is not one of its tokens, or a value is out of
            range or clashes.
    """

    @names_nearest
    def __init__(
        self,
        net: TransformerWrapper,
        *,
        mask_id: int,
        steps: int = 18,
        self_cond: bool = False,
        self_cond_train_prob: float = 0.75,
        no_replace_prob: float = 0.15,
        random_token_prob: float = 0.1,
        schedule: str | Schedule = "linear",
        can_mask_prev_unmasked: bool = False,
        token_critic: TransformerWrapper | None = None,
        self_token_critic: bool = False,
        critic_loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        mask_id, steps, self_cond_train_prob, no_replace_prob, random_token_prob, critic_loss_weight = _checked(
            mask_id=mask_id,
            steps=steps,
            self_cond_train_prob=self_cond_train_prob,
            no_replace_prob=no_replace_prob,
            random_token_prob=random_token_prob,
            critic_loss_weight=critic_loss_weight,
        )
        _check_net("net", net)
        self.gives_mask = not (mask_id == net.num_tokens - 1 == _logits(net))
        if self.gives_mask:
            _check_logits("net", net, net.num_tokens)
        if not mask_id < net.num_tokens:
            raise ValueError(f"mask_id={mask_id} is not a token of the net, which has num_tokens={net.num_tokens}")
        if net.num_tokens < 2:
            raise ValueError("the net has no token besides mask_id")
        if no_replace_prob + random_token_prob > 1:
            raise ValueError(
                "no_replace_prob and random_token_prob are shares of the same tokens; their sum is above 1"
            )
        if token_critic is not None and self_token_critic:
            raise ValueError("token_critic and self_token_critic are both set; give one")
        if token_critic is not None:
            _check_net("token_critic", token_critic)
            _check_logits("token_critic", token_critic, 1)
            if token_critic.num_tokens != net.num_tokens:
                theirs, ours = token_critic.num_tokens, net.num_tokens
                raise ValueError(f"token_critic has num_tokens={theirs}, and the net has num_tokens={ours}")
        self.net, self.mask_id, self.steps = net, mask_id, steps
        if net.max_seq_len is None:
            raise ValueError("max_seq_len tokens are generated, and the net has none: give it max_seq_len= above 0")
        self.num_tokens, self.max_seq_len = net.num_tokens, net.max_seq_len
        self.no_replace_prob, self.random_token_prob = no_replace_prob, random_token_prob
        self.schedule = schedule_of(schedule)
        self.can_mask_prev_unmasked = can_mask_prev_unmasked
        self.self_cond_train_prob = self_cond_train_prob
        self.null_embed = nn.Parameter(torch.randn(net.dim)) if self_cond else None
        self.to_self_cond = nn.Linear(net.dim, net.emb_dim, bias=False) if self_cond else None
        self.token_critic = token_critic
        self.to_critic = nn.Linear(net.dim, 1) if self_token_critic else None
        self.critic_loss_weight = critic_loss_weight

    # Training --------------------------------------------------------------------------------------------------------

    @names_nearest
    @spells(keywords_of(ContextInputs))
    def forward(
        self,
        x: Tensor,
        only_train_generator: bool = False,
        only_train_critic: bool = False,
        generator_sample_temperature: float | None = None,
        mask: Tensor | None = None,
        **context: Unpack[ContextInputs],
    ) -> Losses:
        """The losses of a batch, masked at random.

        Args:
            x: (batch, max_seq_len) tokens, as long as generation makes them.
            only_train_generator: no critic's loss.
            only_train_critic: no gradient of the generator's loss; a self critic's net trains as its critic.
            generator_sample_temperature: of the tokens made up for the critic; None: a random one for each row, from
                0 to 1, as those of generation are.
            mask: (batch, max_seq_len) bool, True = a real token; padding is neither seen nor predicted.
            context: context, context_mask, for the net's cross-attention; condition, for its adaptive norms.

        Raises:
            ValueError: the tokens have another shape, or mask_id where the net gives no logit for it; a temperature is
                negative, or no critic can be trained.
        """
        (generator_sample_temperature,) = _checked(generator_sample_temperature=generator_sample_temperature)
        if only_train_generator and only_train_critic:
            raise ValueError("only_train_generator and only_train_critic are both set; give one")
        has_critic = self.token_critic is not None or self.to_critic is not None
        if only_train_critic and not has_critic:
            raise ValueError("there is no critic to train: give token_critic= or self_token_critic=True")
        x = whole_numbers("tokens", x, " (batch, seq)")
        if x.ndim != 2 or x.shape[1] != self.max_seq_len:
            raise ValueError(f"tokens must be (batch, {self.max_seq_len}), not {tuple(x.shape)}")
        check_mask("mask", mask, x)
        if not (self.gives_mask or torch.compiler.is_compiling()) and (x == self.mask_id).any():
            raise ValueError(f"the tokens have mask_id={self.mask_id} among them, which the net gives no logit for")
        with auxiliary_losses() as further:
            with_critic = has_critic and not only_train_generator
            losses = self._losses(x, mask, with_critic, only_train_critic, generator_sample_temperature, context)
        return losses._replace(loss=further.added_to(losses.loss))

    def _losses(
        self,
        x: Tensor,
        mask: Tensor | None,
        with_critic: bool,
        only_train_critic: bool,
        generator_sample_temperature: float | None,
        context: Mapping[str, Any],
    ) -> Losses:
        """Those of checked arguments, without what blocks add."""
        read: dict[str, Any] = {"mask": mask, **context}
        real = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
        masked = masked_at_random(real, self.schedule)
        seen = corrupted(x, masked, self.mask_id, self.num_tokens, self.no_replace_prob, self.random_token_prob)
        wanted = Target(x.long().masked_fill(~masked, _IGNORED), _IGNORED, "sum")
        count = masked.sum().clamp(min=1)
        if not with_critic:
            read = self._conditioned(self._trained_condition(seen, read), read)
            generator_loss = loss_of(self.net, seen, wanted, **read) / count
            return Losses(generator_loss, generator_loss, None)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not only_train_critic):
            logits, _ = self._fill(seen, self._trained_condition(seen, read), read)
        generator_loss = wanted.of_logits(logits) / count
        made_up = self._made_up(logits.detach(), generator_sample_temperature)
        guess = torch.where(masked, made_up, x)
        scores = self._scores(guess, read)
        wrong = F.binary_cross_entropy_with_logits(scores, (guess != x).to(scores.dtype), reduction="none")
        critic_loss = _mean(wrong, real)
        if only_train_critic:
            return Losses(critic_loss, None, critic_loss)
        return Losses(generator_loss + self.critic_loss_weight * critic_loss, generator_loss, critic_loss)

    def _fill(self, tokens: Tensor, condition: Tensor | None, read: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """(batch, seq, logits_dim) logits and (batch, seq, dim) embeddings; `condition` is of the same shape."""
        return self.net(tokens, return_logits_and_embeddings=True, **self._conditioned(condition, read))

    def _conditioned(self, condition: Tensor | None, read: dict[str, Any]) -> dict[str, Any]:
        """What the net reads, `condition: (batch, seq, dim)` with it."""
        if self.to_self_cond is None or condition is None:
            return read
        return {**read, "sum_embeds": apply(self.to_self_cond, condition)}

    def _nothing_known(self, tokens: Tensor) -> Tensor | None:
        """(batch, seq, dim), what the first step is conditioned on."""
        return None if self.null_embed is None else self.null_embed.expand(*tokens.shape, -1)

    def _trained_condition(self, tokens: Tensor, read: dict[str, Any]) -> Tensor | None:
        """(batch, seq, dim): for some rows the embeddings of a first step, for the others what a first step gets."""
        null = self._nothing_known(tokens)
        if null is None:
            return None
        with torch.no_grad():
            _, before = self._fill(tokens, null, read)
        rows = torch.rand(tokens.shape[0], 1, 1, device=tokens.device, dtype=torch.float32) < self.self_cond_train_prob
        return torch.where(rows, before, null)

    def _made_up(self, logits: Tensor, temperature: float | None) -> Tensor:
        """(batch, seq) tokens for the critic to judge, from `logits: (batch, seq, logits_dim)`."""
        rows = (
            torch.rand(logits.shape[0], 1, device=logits.device, dtype=torch.float32)
            if temperature is None
            else temperature
        )
        return _draw(self._without_mask(logits), rows, None)

    def _without_mask(self, logits: Tensor) -> Tensor:
        """(batch, seq, num_tokens) logits in float32, with mask_id excluded."""
        if not self.gives_mask:
            return F.pad(logits.float(), (0, 1), value=float("-inf"))
        never = torch.arange(self.num_tokens, device=logits.device, dtype=torch.int64) == self.mask_id
        return logits.float().masked_fill(never, float("-inf"))

    def _scores(self, tokens: Tensor, read: dict[str, Any]) -> Tensor:
        """(batch, seq), the critic's logits that a token was made up."""
        if self.to_critic is not None:
            scores = apply(self.to_critic, self._fill(tokens, self._nothing_known(tokens), read)[1])
        else:
            assert self.token_critic is not None
            graph = self.token_critic.graph
            reads = {"mask": True, "condition": bool(graph.condition[0])}
            has_context = bool(graph.nodes("context"))
            own = {name: value for name, value in read.items() if reads.get(name, has_context)}
            scores = self.token_critic(tokens, **own)
        return scores.squeeze(-1)

    # Generation ------------------------------------------------------------------------------------------------------

    @names_nearest
    @spells(keywords_of(ContextInputs))
    def generate(
        self,
        batch_size: int | None = None,
        start_temperature: float = 1.0,
        filter_thres: float = 0.7,
        noise_level_scale: float = 1.0,
        generator: torch.Generator | None = None,
        **context: Unpack[ContextInputs],
    ) -> Tensor:
        """Generate tokens from fully masked sequences.

        Args:
            batch_size: rows; None: one, without the batch's axis.
            start_temperature: of the tokens' sampling; it falls to 0 in the last step.
            filter_thres: share of the vocabulary, the least likely tokens, that is not sampled.
            noise_level_scale: Gumbel noise of the choice of what is masked again; it falls to 0 as well.
            generator: for reproducible sampling.
            context: context, context_mask, for the net's cross-attention; condition, for its adaptive norms.

        Returns:
            (batch, max_seq_len) int64 tokens, or (max_seq_len,); none of them is mask_id.

        Raises:
            ValueError: a value is out of range.
        """
        batch_size, start_temperature, filter_thres, noise_level_scale = _checked(
            batch_size=batch_size,
            start_temperature=start_temperature,
            filter_thres=filter_thres,
            noise_level_scale=noise_level_scale,
        )
        device = next(self.net.parameters()).device
        read: dict[str, Any] = {"mask": None, **context}
        tokens = torch.full((batch_size or 1, self.max_seq_len), self.mask_id, device=device, dtype=torch.int64)
        masked = torch.ones_like(tokens, dtype=torch.bool)
        condition = self._nothing_known(tokens)
        kept = math.ceil((1 - filter_thres) * self.num_tokens)
        with evaluating(self):
            for step, still_masked in enumerate(self._still_masked()):
                left = 1 - (step + 1) / self.steps
                logits, condition = self._fill(tokens, condition, read)
                logits = self._without_mask(logits)
                likely = keep_top_k(logits.flatten(0, 1), kept).view_as(logits)
                drawn = _draw(likely, start_temperature * left, generator)
                tokens = torch.where(masked, drawn, tokens)
                certain = self._certainty(tokens, logits, read)
                certain = certain + noise_level_scale * left * _gumbel(certain, generator)
                masked = self._least_certain(certain, masked, still_masked)
                tokens = tokens.masked_fill(masked, self.mask_id)
        return tokens if batch_size is not None else tokens[0]

    def _still_masked(self) -> list[int]:
        """How many tokens are masked after each step; none after the last."""
        times = torch.linspace(0, 1, self.steps + 1, device="cpu", dtype=torch.float32)[1:-1]
        return [*(self.schedule(times) * self.max_seq_len).long().tolist(), 0]

    def _certainty(self, tokens: Tensor, logits: Tensor, read: dict[str, Any]) -> Tensor:
        """(batch, seq): log-probability of each token, or by the critic the logit that it is real."""
        if self.to_critic is not None or self.token_critic is not None:
            return -self._scores(tokens, read).float()
        return logits.log_softmax(dim=-1).gather(-1, tokens[..., None]).squeeze(-1)

    def _least_certain(self, certain: Tensor, masked: Tensor, count: int) -> Tensor:
        """(batch, seq) bool: the `count` least certain places, of those that are masked unless all may be."""
        if not self.can_mask_prev_unmasked:
            certain = certain.masked_fill(~masked, float("inf"))
        least = certain.topk(count, dim=-1, largest=False).indices
        chosen = torch.zeros_like(masked).scatter(1, least, True)
        return chosen if self.can_mask_prev_unmasked else chosen & masked


def _checked(**values: Any) -> tuple[Any, ...]:
    """The values in this order, in Python's own types."""
    return tuple(checked_values(values, _OPTIONS).values())


def _check_net(name: str, net: Any) -> None:
    if not isinstance(uncompiled(net), TransformerWrapper):
        raise TypeError(f"{name} must be a TransformerWrapper, not {type(net).__name__}")
    if net.graph.sees_later() is None:
        raise ValueError(f"{name} is causal, and a masked token is filled in from both sides; use an Encoder")


def _logits(net: TransformerWrapper) -> int | None:
    """How many it gives a token."""
    logits: int | None = net.graph.nx.nodes[net.graph.end]["logits_dim"]
    return logits


def _check_logits(name: str, net: TransformerWrapper, wanted: int) -> None:
    given = _logits(net)
    if given != wanted:
        logits, has = "logit" if wanted == 1 else "logits", "none" if given is None else given
        raise ValueError(f"{name} must give {wanted} {logits} per token, not {has}: set logits_dim")


def _gumbel(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard Gumbel noise of the shape and type of `like`."""
    tiny = torch.finfo(like.dtype).tiny
    return -torch.empty_like(like).exponential_(generator=generator).clamp(min=tiny).log()


def _draw(logits: Tensor, temperature: Tensor | float, generator: torch.Generator | None) -> Tensor:
    """One token per place of `logits: (batch, seq, num_tokens)`; at temperature 0 the likeliest.

    The largest of logits + temperature · Gumbel noise is distributed as softmax(logits / temperature).

    Args:
        temperature: a number, or (batch, 1).
    """
    if isinstance(temperature, Tensor):
        temperature = temperature[..., None]
    return (logits + temperature * _gumbel(logits, generator)).argmax(dim=-1)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """Mean of `values: (batch, seq)` over places that are True; 0 where there is none."""
    return (values * where).sum() / where.sum().clamp(min=1)
