"""Models around a stack, with the arguments, results and attributes of x-transformers."""

from __future__ import annotations

import warnings
from inspect import signature
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from blockdsl.errors import did_you_mean

from ..blocks.embedding import Embedding
from ..generation import seq2seq
from ..generation.decoding import Stream
from ..models import continuous, transformer, vision
from ..models.layers import stack_keywords
from ..models.sequence import SequenceModel
from ..positions.absolute import AbsolutePositions, SinusoidalPositions
from ..runtime.intermediates import Intermediates
from ..runtime.stack import Stack
from .checkpoints import reads_checkpoints
from .keywords import ignored, stack_keywords_of, without_defaults, without_unset
from .settable import Settable, part
from .stacks import Decoder, Encoder, masked_from, mems_of, preceded
from .wrappers import AutoregressiveWrapper, mask_of, prompts_of, sampling_of


class _Named(Settable, Embedding):
    """An embedding that is also read one module deeper, as x-transformers keeps it."""

    @property
    def emb(self) -> nn.Module:
        """Itself; of an embedding that is set it takes the vectors."""
        return self

    @emb.setter
    def emb(self, embedding: nn.Embedding) -> None:
        if type(embedding) is not nn.Embedding or embedding.max_norm is not None or embedding.padding_idx is not None:
            raise TypeError("token_emb.emb takes the vectors of a plain nn.Embedding; set token_emb for another module")
        self.weight, self.num_embeddings = embedding.weight, embedding.num_embeddings
        self.embedding_dim = embedding.embedding_dim


class _NamedPositions(Settable, AbsolutePositions):
    """Learned positions whose table is also read as `emb`."""

    @property
    def emb(self) -> nn.Module:
        """The table of vectors, (positions, features)."""
        return self.embedding

    @emb.setter
    def emb(self, table: nn.Module) -> None:
        self.embedding = table  # type: ignore[assignment]


def _named(model: Any) -> None:
    """Let clients read `token_emb.emb.weight` and `pos_emb.emb.weight`; the modules stay what they are otherwise."""
    for name, plain, named in (("token_emb", Embedding, _Named), ("pos_emb", AbsolutePositions, _NamedPositions)):
        module = getattr(model, name, None)
        if type(module) is plain:
            module.__class__ = named


_FORWARD = signature(SequenceModel.forward).parameters


def _put_norm(model: Any, norm: nn.Module) -> None:
    model.attn_layers.norm = norm


class _Sequence(Settable, SequenceModel):
    """The arguments and results of a pass as x-transformers has them."""

    own_forwards: ClassVar[tuple[Any, ...]] = ()

    norm = part(
        lambda model: nn.Identity(),
        _put_norm,
        "norm",
        "After the stack, in releases 1.x: nothing more, the stack's output is normed already. What is set norms it.",
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        if args or options:
            super().__init__(*args, **options)
            _named(self)
            reads_checkpoints(self)
        else:  # a subclass that makes all of the model itself, after super(TransformerWrapper, self).__init__()
            nn.Module.__init__(self)

    def _positions(self, x: Tensor, pos: Tensor | None) -> Tensor:
        if isinstance(self.pos_emb, AbsolutePositions | SinusoidalPositions) or pos is None:
            return super()._positions(x, pos)
        vectors: Tensor = self.pos_emb(x, pos=pos)  # type: ignore[misc]  # as x-transformers calls a module in its place
        return vectors

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        return_embeddings: bool | Tensor = False,
        return_logits_and_embeddings: bool = False,
        return_intermediates: bool = False,
        return_embeddings_and_intermediates: bool = False,
        *,
        mask: Tensor | None = None,
        lens: Tensor | None = None,
        seq_start_pos: Tensor | None = None,
        self_attn_kv_mask: Tensor | None = None,
        return_mems: bool = False,
        return_attn: bool = False,
        mems: Any = None,
        mem_masks: Any = None,
        detach_mems: bool = True,
        input_not_include_cache: bool = False,
        excise_prepend_embeds: bool = False,
        **inputs: Any,
    ) -> Any:
        """As `SequenceModel.forward`, but absolute positions count from the first place even if a mask hides it. Also:

        Args:
            return_embeddings_and_intermediates: the stack's output, and the Intermediates.
            lens: (batch,) int, how many tokens of each row are real, in place of a mask.
            seq_start_pos: (batch,) int, how many places of left padding each row has.
            self_attn_kv_mask: 2.x's name for self_attn_context_mask.
            mems, mem_masks: of earlier segments, a list a layer or the Memories.
            input_not_include_cache: with Intermediates as cache, x has only new tokens, of any number.
            excise_prepend_embeds: leave the prepended embeddings out of what is returned.

        Returns:
            what x-transformers returns: with intermediates these alone, which have the memories, else memories, else
            weights, in a pair with the logits or embeddings.
        """
        embeddings = return_embeddings_and_intermediates
        if isinstance(return_embeddings, Tensor):  # our order of arguments
            if mask is not None:
                raise TypeError("forward() got two masks: the second argument, and mask=")
            mask = return_embeddings
        else:
            embeddings = embeddings or return_embeddings
        for name in inputs:
            if name not in _FORWARD:
                hint = did_you_mean(name, _FORWARD)
                raise TypeError(f"forward() got an unknown argument '{name}'" + (f"; {hint}" if hint else ""))
        if not detach_mems:
            raise TypeError("detach_mems=False: memories are without gradient here")
        if lens is not None:
            mask = mask_of(x, mask, lens)
        if self_attn_kv_mask is not None:
            inputs["self_attn_context_mask"] = self_attn_kv_mask
        cache = inputs.get("cache")
        if input_not_include_cache and isinstance(cache, Intermediates) and cache.sequence is not None:
            x, mask = preceded(cache.sequence.length, x, mask)
        mask = masked_from(x, seq_start_pos, mask, cache)
        counts = mask is not None and seq_start_pos is None and self.pos_emb is not None
        if counts and cache is None and inputs.get("pos") is None and not inputs.get("last_only"):
            inputs["pos"] = torch.arange(x.shape[1], device=x.device, dtype=torch.int64)
        intermediates = return_intermediates or return_embeddings_and_intermediates
        weights = return_attn and not (intermediates or return_mems)
        pooled = self.pool in ("mean", "cls") and (embeddings or return_logits_and_embeddings)
        if pooled:
            inputs["return_pooled"] = True
        out: Any = super().forward(
            x,
            mask,
            return_embeddings=embeddings,
            return_logits_and_embeddings=return_logits_and_embeddings,
            return_intermediates=intermediates,
            return_mems=return_mems,
            return_attn=weights,
            mems=mems_of(self.attn_layers, mems, mem_masks),
            **inputs,
        )
        if pooled:  # the vector is what is embedded there
            out, vector, *parts = out
            own = (out[0], vector) if return_logits_and_embeddings else vector
            out = (own, *parts) if parts else own
        elif self.pool == "attention" and not embeddings and self.return_only_embed:
            first = out[0] if isinstance(out, tuple) else out
            first = first if first.ndim == 3 else first[:, None]  # one pooled token is an axis too
            out = (first, *out[1:]) if isinstance(out, tuple) else first
        further = intermediates or return_mems or weights
        result, parts = (out[0], out[1:2]) if further else (out, ())
        if excise_prepend_embeds and inputs.get("prepend_embeds") is not None and cache is None:
            start = inputs["prepend_embeds"].shape[1]
            result = tuple(t[:, start:] for t in result) if isinstance(result, tuple) else result[:, start:]
        return (result, *parts) if parts else result


_Sequence.own_forwards = (_Sequence.forward,)
_Sequence.with_target = (*transformer.TransformerWrapper.with_target, _Sequence.forward)  # type: ignore[attr-defined]


def _around(called: str, attn_layers: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a model around a stack, in our names."""
    own = without_unset(without_defaults(options), _AROUND)
    if options.get("attn_pool"):
        own |= _attention_pool(called, attn_layers)
    disabled = getattr(attn_layers, "disable_abs_pos_emb", None)
    if disabled and own.get("use_abs_pos_emb", True):
        own["use_abs_pos_emb"] = False
        own.pop("scaled_sinu_pos_emb", None)
    if disabled is False and isinstance(attn_layers, Stack) and attn_layers.reads_positions:
        raise TypeError(f"{called}(): disable_abs_pos_emb=False with other positions is not here; leave it out")
    return own


def _attention_pool(called: str, attn_layers: Any) -> dict[str, Any]:
    """What attn_pool=True says in our names: heads as those of the stack, and pooled tokens in place of logits."""
    if attn_layers.graph.sees_later() is None:
        raise TypeError(f"{called}(attn_pool=True) of a causal stack gives its tokens beside logits there; not here")
    options = attn_layers.graph.block(attn_layers.attending[0])["options"]
    heads = {"pool_heads": options["heads"], "pool_dim_head": options["dim_head"]}
    return {"pool_bias": False, "pool_inner": 0, "return_only_embed": True, **heads}


def _length(max_seq_len: int | None) -> int | None:
    """-1 is what clients write for a length that nothing reads."""
    return None if max_seq_len == -1 else max_seq_len


class TransformerWrapper(_Sequence, transformer.TransformerWrapper):
    """`xt_blocks.TransformerWrapper`, called and read as x-transformers' is.

    Args:
        options: as there; those of 2.x that are not here are refused unless they are at their default.
    """

    def __init__(self, *, num_tokens: int, max_seq_len: int | None, attn_layers: Stack, **options: Any) -> None:
        own = _around("TransformerWrapper", attn_layers, options)
        length = _length(max_seq_len)
        super().__init__(num_tokens=num_tokens, max_seq_len=length, attn_layers=attn_layers, **own)

    @property
    def can_cache_kv(self) -> bool:
        """Whether tokens can be decoded one at a time with a cache."""
        return self.graph.why_not_cached() is None


class ContinuousTransformerWrapper(_Sequence, continuous.ContinuousTransformerWrapper):
    """`xt_blocks.ContinuousTransformerWrapper`, called and read as x-transformers' is.

    Args:
        max_mem_len: how many vectors the memories keep.
        options: the others, as there.
    """

    def __init__(
        self, *, max_seq_len: int | None = None, attn_layers: Stack, max_mem_len: int = 0, **options: Any
    ) -> None:
        own = _around("ContinuousTransformerWrapper", attn_layers, options)
        super().__init__(max_seq_len=_length(max_seq_len), attn_layers=attn_layers, **own)
        self.max_mem_len = max_mem_len


class ViTransformerWrapper(Settable, vision.ViTransformerWrapper):
    """`xt_blocks.ViTransformerWrapper`, called, read and changed as x-transformers' is.

    Without num_classes, it gives the mean of the embedded patches, (batch, dim), unless asked for embeddings.

    Args:
        dropout: of 1.x, where it has no effect.
        options: as there.
    """

    own_forwards: ClassVar[tuple[Any, ...]] = ()

    def __init__(self, *, image_size: Any, patch_size: Any, attn_layers: Stack, dropout: float = 0.0, **options: Any):
        if dropout:
            warnings.warn(ignored("ViTransformerWrapper", "dropout", ["emb_dropout"]), stacklevel=2)
        super().__init__(image_size=image_size, patch_size=patch_size, attn_layers=attn_layers, **options)
        self.patch_size = patch_size
        reads_checkpoints(self)

    norm = part(
        lambda model: nn.Identity(),
        _put_norm,
        "norm",
        "After the stack, in releases 1.x: nothing more, the stack's output is normed already. What is set norms it.",
    )
    dropout = part(
        lambda model: model.emb_dropout,
        lambda model, value: setattr(model, "emb_dropout", value),
        "dropout",
        "Of the embedded patches.",
    )
    mlp_head = part(
        lambda model: nn.Identity() if model.to_classes is None else model.to_classes,
        lambda model, value: setattr(model, "to_classes", value),
        "mlp_head",
        "From the mean of the embedded patches, (batch, dim), to classes.",
    )
    patch_to_embedding = part(
        lambda model: _patch_layers(model.patch_emb),
        lambda model, value: setattr(model, "patch_emb", _Patches(model.patch_emb.patch, value)),
        "patch_to_embedding",
        "From the pixels of patches, (batch, patches, pixels), to (batch, patches, dim).",
    )
    pos_embedding = part(
        lambda model: model.pos_emb.table if isinstance(model.pos_emb, _Table) else model.pos_emb.weight[None],
        lambda model, value: setattr(model, "pos_emb", _Table(value)),
        "pos_embedding",
        "(1, patches, dim), the learned positions.",
    )

    def forward(
        self,
        img: Tensor,
        return_embeddings: bool = False,
        return_logits_and_embeddings: bool = False,
        masked: Tensor | None = None,
        interpolate_pos: bool = False,
        condition: Tensor | None = None,
    ) -> Any:
        """See `xt_blocks.ViTransformerWrapper`."""
        further = (masked, interpolate_pos, condition)
        out = super().forward(img, return_embeddings, return_logits_and_embeddings, *further)
        pools = self.pools or self.to_classes is not None
        return out if pools or return_embeddings else out.mean(dim=1)  # type: ignore[union-attr]


ViTransformerWrapper.own_forwards = (ViTransformerWrapper.forward,)


def _patch_layers(embedding: Any) -> nn.Module:
    if isinstance(embedding, _Patches):
        return embedding.layers
    return nn.Sequential(embedding.norm_in, embedding.project, embedding.norm_out)


class _Patches(nn.Module):
    """Patches of an image as vectors, by layers that a client gives."""

    def __init__(self, patch: tuple[int, int], layers: nn.Module) -> None:
        super().__init__()
        self.patch, self.layers = patch, layers

    def forward(self, img: Tensor) -> Tensor:
        """`img: (batch, channels, height, width)` → (batch, patches, dim)."""
        embedded: Tensor = self.layers(vision.patches(img, self.patch))
        return embedded


class _Table(nn.Module):
    """Positions (1, places, dim) that a client gives."""

    table: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table

    @property
    def weight(self) -> Tensor:
        """(places, dim)"""
        return self.table[0]

    def forward(self, places: Tensor) -> Tensor:
        """`places: (n,)` int → (n, dim)."""
        return self.weight[places]


class XTransformer(seq2seq.XTransformer):
    """`xt_blocks.XTransformer`, with the keywords of x-transformers for both sides."""

    encoder_class, decoder_class = Encoder, Decoder
    model_class, wrapper_class = TransformerWrapper, AutoregressiveWrapper

    def __init__(self, *, dim: int, **keywords: Any) -> None:
        own: dict[str, Any] = {}
        for prefix in ("enc_", "dec_"):
            side = {name[4:]: keywords.pop(name) for name in [*keywords] if name.startswith(prefix)}
            side = without_unset(without_defaults(side), {*_AROUND, *stack_keywords()})
            around = {name: side.pop(name) for name in [*side] if name in _AROUND}
            for name in [name for name in around if name not in _ROUTED[prefix]]:
                told = f"XTransformer({prefix}{name}=...) acts here; 1.x of x-transformers ignores it, 2.x refuses it"
                warnings.warn(told, stacklevel=2)
            if side.pop("disable_abs_pos_emb", False):
                around["use_abs_pos_emb"] = False
            if prefix == "dec_" and "pattern" not in side and "pattern" not in keywords:
                side["cross_attend"] = True
            own |= {
                prefix + name: value
                for name, value in (around | stack_keywords_of("XTransformer", side, prefix)).items()
            }
        for name in [*keywords]:
            if name not in _OWN:
                keywords.pop(name)
                warnings.warn(ignored("XTransformer", name, [*_OWN, *own]), stacklevel=2)
        super().__init__(dim=dim, **keywords, **own)
        reads_checkpoints(self)

    def generate(self, *inputs: Any, **options: Any) -> Tensor:
        """The tokens of `stream` side by side, (batch, up to seq_len)."""
        return self.stream(*inputs, **options).collect()

    def stream(
        self, seq_in: Tensor, seq_out_start: Any = None, seq_len: int | None = None, *inputs: Any, **options: Any
    ) -> Stream:
        """As `xt_blocks`' own, with the arguments and the default of sampling of `AutoregressiveWrapper.stream`."""
        lens = options.pop("prompt_lens", None)
        start = None if seq_out_start is None else prompts_of(seq_out_start, lens)
        return super().stream(seq_in, start, seq_len, *inputs, **sampling_of(**options))


_AROUND = frozenset(signature(transformer.TransformerWrapper).parameters) - {"attn_layers"}
_ROUTED = {"dec_": ["num_tokens", "max_seq_len", "emb_dropout", "scaled_sinu_pos_emb", "use_abs_pos_emb"]}
_ROUTED["enc_"] = [*_ROUTED["dec_"], "num_memory_tokens"]
_OWN = [name for name in signature(seq2seq.XTransformer).parameters if not name.startswith(("enc_", "dec_"))]
