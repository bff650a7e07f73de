"""Tokens in, logits out: embedding and positions before a stack, a linear layer after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from blockdsl.graph.tokens import of_logits
from blockdsl.registry.keywords import parameters, spells
from blockdsl.registry.norms import embedding_norm, pool_norm
from blockdsl.registry.options import by_name
from blockdsl.registry.pools import cls_tokens, pool_attention, vectors_of
from blockdsl.registry.tokens import TOKEN_OPTIONS

from ..blocks import head
from ..blocks.embedding import SMALL_STD, Embedding, unit_length
from ..blocks.linear import apply
from ..blocks.norms import norm
from ..kernels.compat import uncompiled
from ..kernels.cross_entropy import Target, softcapped
from ..kernels.hooks import runs
from ..kernels.tensors import misfit, whole_numbers
from ..runtime.stack import Stack
from .keywords import names_nearest
from .pooling import AttentionPool, at_end, one_or_more, pooled
from .sequence import SequenceModel

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from blockdsl.signatures import TokenSettings

    from .inputs import Inputs


class TransformerWrapper(SequenceModel):
    """A stack over tokens.

    The embedded sequence is tokens + positions + sum_embeds, normed. Prepended embeddings go before it; then dropout
    and a projection to the stack's features are applied. In the stack, memory tokens come first.

    Args:
        num_tokens: size of the vocabulary.
        max_seq_len: longest sequence, and the number of learned absolute positions; None or 0: any length, without
            learned positions.
        attn_layers: the stack, an Encoder, a Decoder or a result of `lower`.
        emb_dim: features of the embedding if they differ from the stack's; a linear layer projects them
            (ALBERT, arXiv:1909.11942).
        use_abs_pos_emb: learned absolute positions, unless the stack has rotary ones or T5's bias.
        scaled_sinu_pos_emb: sinusoids (arXiv:1706.03762) with a learned scale instead.
        pos_offset: rows of the learned positions before that of a row's first real token.
        embed_scale: factor of the embedded tokens, before positions: √dim in Vaswani et al., arXiv:1706.03762, and in
            Gemma, arXiv:2403.08295.
        num_token_types: how many types of tokens there are, whose learned vectors are added to the tokens' (BERT's
            segments, arXiv:1810.04805); `token_types=` of a call says the type of each, type 0 by default.
        l2norm_embed: embedded tokens and learned positions are of unit length (FixNorm, arXiv:1910.05895).
        post_emb_norm: LayerNorm after tokens and positions (BLOOM, arXiv:2211.05100).
        emb_frac_gradient: share of the gradient that reaches the embedding, above 0 and at most 1 (CogView,
            arXiv:2105.13290).
        emb_dropout: dropout of the embedded sequence.
        num_memory_tokens: learned tokens in front of the sequence while it is in the stack (arXiv:2006.11527).
        max_mem_len: how many tokens of earlier segments are kept (Transformer-XL, arXiv:1901.02860).
        shift_mem_down: how many layers further down memories are read (arXiv:2012.15688).
        tie_embedding: logits by the token embedding's own matrix (arXiv:1608.05859).
        logits_dim: how many logits, in place of num_tokens.
        logits_scale: factor of the logits, but of their bias. None: 1, and 1/√dim of tied ones, as T5 does, since the
            embedding is drawn for the stream and not for logits (arXiv:1910.10683).
        logits_bias: whether logits have a learned bias; None: unless they are tied.
        logits_softcap: logits are bounded by it, each x as c · tanh(x / c) (Gemma 2, arXiv:2408.00118).
        logits_transform: a linear layer, this activation and a LayerNorm before the logits, as in BERT's head
            (arXiv:1810.04805). Before tied logits it leads to emb_dim features.
        logits_transform_bias: whether that linear layer has a bias.
        squeeze_out_last_dim: with logits_dim=1, logits are numbers, (batch, seq).
        return_only_embed: no logits; the model gives the stack's output.
        pool: the model gives one vector for each sequence, or its logits: the "mean" of the real tokens' embeddings,
            that of the "first", of the "last" or of the "end" of its text; of learned "cls" tokens in front of it,
            which are in the stack alone; or by "attention". It takes no cache, and no target.
        num_cls_tokens: how many class tokens; several give (batch, n, ...).
        num_pooled_tokens, pool_heads, pool_dim_head, pool_bias, pool_inner, pool_activation: of pool=attention: the
            queries that are learned, several of which give (batch, n, ...), and the feedforward after it.
        end_token: whose first place in a row is its end, whatever the mask; a row without it has its first token's.
            None: the row's highest token (CLIP, arXiv:2103.00020).
        pooler: a linear layer and tanh of that vector, as in BERT (arXiv:1810.04805); without pool, of the first
            token's for `return_pooled=True`.

    Attributes:
        graph: the whole model's BlockGraph.
        num_tokens, emb_dim, num_memory_tokens, max_mem_len, shift_mem_down: as given.
        max_seq_len: as given; None where it was 0.
        dim: features of the stack.

    Raises:
        TypeError: an unknown argument; the message names the nearest.
        UserError: a value is out of range, or two arguments clash.
    """

    over = "tokens"
    with_target: ClassVar[tuple[Callable[..., Any], ...]] = (SequenceModel.forward,)
    """The forward passes that take `target=`; a subclass with a forward of its own may not."""

    @names_nearest
    @spells(parameters(by_name(TOKEN_OPTIONS)))
    def __init__(
        self, *, num_tokens: int, max_seq_len: int | None, attn_layers: Stack, **options: Unpack[TokenSettings]
    ) -> None:
        super().__init__()
        if not isinstance(uncompiled(attn_layers), Stack):
            raise TypeError(f"attn_layers must be a stack, as Decoder(...) is, not {type(attn_layers).__name__}")
        self.graph = attn_layers.graph.with_tokens(num_tokens, max_seq_len, **options)
        start, end = self.graph.nx.nodes[self.graph.start], self.graph.nx.nodes[self.graph.end]
        self.num_tokens: int = start["num_tokens"]
        self.unit, self.emb_frac_gradient = start["l2norm_embed"], start["emb_frac_gradient"]
        self.embed_scale: float = start["embed_scale"]
        emb_dim = self.graph.emb_dim
        std = SMALL_STD if self.unit else (2 / emb_dim) ** 0.5  # He et al., arXiv:1502.01852
        self.token_emb = Embedding(self.num_tokens, emb_dim, std)
        self._build(attn_layers)
        tables = self.graph.value_embeds.items()
        value_std = 3**-0.5  # as large as values are at first, of a linear layer of the normed stream
        self.value_emb = nn.ModuleDict({str(n): Embedding(self.num_tokens, size, value_std) for n, size in tables})
        self.num_token_types: int = start["num_token_types"]
        self.token_type_emb = Embedding(self.num_token_types, emb_dim, std) if self.num_token_types else None
        self.pool: str | None = end["pool"]
        self.end_token: int | None = end["end_token"]
        self.pooler = nn.Linear(self.dim, self.dim) if end["pooler"] else None
        self.cls_tokens = nn.Parameter(torch.randn(count, self.dim) * 0.02) if (count := cls_tokens(end)) else None
        self.attention_pool = None
        if self.pool == "attention":
            own_norm = norm(pool_norm(end), self.dim)
            self.attention_pool = AttentionPool(self.dim, own_norm, pool_attention(end, self.dim), vectors_of(end))
        self.squeeze_out_last_dim: bool = end["squeeze_out_last_dim"]
        self.has_vector = end["pool"] is not None or end["pooler"]
        self.reads = self.reads._replace(types=self.token_type_emb is not None)
        self.max_mem_len = start["max_mem_len"]
        self.shift_mem_down = start["shift_mem_down"]
        self.tie_embedding: bool = end["tied"]
        self.return_only_embed = end["logits_dim"] is None
        own_logits = not (self.tie_embedding or self.return_only_embed)
        logits: dict[str, Any] = of_logits(self.graph)
        self.logits_scale: float = logits["logits_scale"]
        self.logits_softcap: float | None = end["logits_softcap"]
        activation, scored = end["logits_transform"], emb_dim if self.tie_embedding else self.dim
        self.logits_transform = (
            None
            if activation is None
            else head.LogitsTransform(self.dim, scored, activation, end["logits_transform_bias"], embedding_norm(end))
        )
        self.to_logits = nn.Linear(self.dim, end["logits_dim"], logits["logits_bias"]) if own_logits else None
        bias = self.tie_embedding and logits["logits_bias"]
        self.logits_bias = nn.Parameter(torch.zeros(self.num_tokens)) if bias else None

    def _vectors(self, x: Tensor) -> Tensor:
        vectors = _looked_up(self.token_emb, x, "tokens", self.num_tokens)
        vectors = unit_length(vectors) if self.unit else vectors
        if self.embed_scale == 1:
            return vectors
        # in the type of the vectors, as Gemma was trained: the root of 3,072 is 55.5 in bfloat16
        return vectors * torch.full((), self.embed_scale, device=vectors.device, dtype=vectors.dtype)

    def _value_embeds(self, x: Tensor) -> Mapping[int, Tensor]:
        tables = self.value_emb.items()
        return {int(number): _looked_up(table, x, "tokens", self.num_tokens) for number, table in tables}

    def _types(self, x: Tensor, token_types: Tensor | None) -> Tensor | None:
        if self.token_type_emb is None:
            return None
        if token_types is None:
            token_types = torch.zeros(1, 1, device=x.device, dtype=torch.int64)
        vectors = _looked_up(self.token_type_emb, token_types, "token_types", self.num_token_types)
        return unit_length(vectors) if self.unit else vectors

    def _in_front(self) -> Tensor | None:
        both: list[Tensor] = [tokens for tokens in (self.memory_tokens, self.cls_tokens) if tokens is not None]
        return torch.cat(both) if both else None

    def _pooled(self, hidden: Tensor, inputs: Inputs, in_front: Tensor | None) -> Tensor:
        if self.pool == "cls" and in_front is not None:
            vector = one_or_more(in_front[:, self.num_memory_tokens :])
        elif self.attention_pool is not None:
            vector = self.attention_pool(hidden, inputs.mask)
        elif self.pool == "end":
            vector = at_end(hidden, inputs.x, self.end_token)
        else:
            vector = pooled(hidden, inputs.mask, self.pool or "first")
        return vector if self.pooler is None else apply(self.pooler, vector).tanh()

    def _outputs(self, hidden: Tensor) -> Tensor:
        hidden = self._scored(hidden)
        if self.to_logits is None:
            logits = head.tied_logits(self.token_emb, hidden, self.num_tokens, self.logits_bias)
        else:
            logits = apply(self.to_logits, hidden)
        logits = softcapped(logits, self.logits_softcap)
        return logits[..., 0] if self.squeeze_out_last_dim else logits

    def _loss(self, hidden: Tensor, target: Target) -> Tensor:
        hidden, cap = self._scored(_last(hidden, target)), self.logits_softcap
        if self.to_logits is None:
            return head.tied_loss(self.token_emb, hidden, self.num_tokens, self.logits_bias, target, cap)
        return head.loss(self.to_logits, hidden, target, cap)

    def _scored(self, hidden: Tensor) -> Tensor:
        """What logits are products of, from `hidden: (batch, seq, dim)`; it takes their factor, being smaller."""
        if self.logits_transform is not None:
            hidden = self.logits_transform(hidden)
        return hidden if self.logits_scale == 1 else hidden * self.logits_scale

    def checked_sequence(self, x: Tensor) -> Tensor:
        if not isinstance(self.token_emb, nn.Embedding):  # another in its place knows what it takes
            return x
        x = whole_numbers("tokens", x, " (batch, seq)")
        if x.ndim != 2:
            raise ValueError(f"tokens must be (batch, seq), not {tuple(x.shape)}")
        return x


def _looked_up(table: nn.Module, x: Tensor, what: str, rows: int) -> Tensor:
    """The vectors of `x: (batch, seq)` int, which are called `what`, in a table of so many rows."""
    vectors: Tensor
    if torch.compiler.is_compiling():
        vectors = table(x)
        return vectors
    try:
        vectors = table(x)
        return vectors
    except IndexError:  # checked afterwards: a check before would wait for a GPU
        last = getattr(table, "num_embeddings", rows) - 1
        raise ValueError(f"{what} are from 0 to {last}; these go from {x.min()} to {x.max()}") from None
    except RuntimeError as error:
        if reason := misfit(what, x, table):
            raise ValueError(reason) from error
        raise


def loss_of(net: nn.Module, tokens: Tensor, target: Target, **read: Any) -> Any:
    """What `net(tokens, **read)` returns, with the target's cross-entropy in place of the logits.

    A net that is hooked, or whose forward is not known to take a target, still makes its logits.
    """
    if any(runs(net, forward) for forward in getattr(net, "with_target", ())):
        return net(tokens, target=target, **read)
    out = net(tokens, **read)
    if isinstance(out, tuple):
        return target.of_logits(_last(out[0], target)), *out[1:]
    return target.of_logits(_last(out, target))


def _last(x: Tensor, target: Target) -> Tensor:
    """The end of `x: (batch, prepended + seq, ...)` that has a target."""
    return x[:, x.shape[1] - target.tokens.shape[1] :]
