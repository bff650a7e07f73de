"""Encoder and decoder as one model, built, trained and decoded together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor, nn

from blockdsl import Pattern
from blockdsl.errors import PatternError, UserError
from blockdsl.registry.keywords import spells
from blockdsl.registry.options import check_names, real, whole

from ..blocks.subset import without_share
from ..kernels.compat import uncompiled
from ..kernels.masks import check_mask, joined_masks
from ..kernels.tensors import check_tensor
from ..models.continuous import ContinuousTransformerWrapper
from ..models.encoder_decoder import conditions
from ..models.inputs import ContextInputs
from ..models.keywords import keywords_of, names_nearest, takes_what
from ..models.layers import Decoder, Encoder
from ..models.sequence import SequenceModel
from ..models.transformer import TransformerWrapper
from ..models.vision import ViTransformerWrapper
from ..runtime.auxiliary import auxiliary_losses
from ..runtime.drawn import Drawn
from ..runtime.evaluation import evaluating
from ..runtime.pretrained import Pretrained
from .autoregressive import AutoregressiveWrapper
from .beams import DRAWING
from .decoding import Stream
from .options import Generation, GenerationOptions
from .pair_keywords import check_pair_keywords, graph_of_both, keywords_of_both, keywords_of_side, with_deepnorm
from .prompts import PromptTokens, read_prompts

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from blockdsl import BlockGraph
    from blockdsl.signatures import Seq2SeqKeywords

# Arguments of the decoder's `stream` that XTransformer gives itself.
_READ_BY_DECODER = ("self", "prompts", "seq_len", "mask", "context", "context_mask", "context_pos", "condition")
# What the encoder reads, if not tokens → its class.
_ENCODERS: dict[str, type[Any]] = {"vectors": ContinuousTransformerWrapper, "images": ViTransformerWrapper}


class TargetOptions(GenerationOptions, total=False):
    """Further arguments of `XTransformer.stream`."""

    prepend_embeds: Tensor | None
    prepend_mask: Tensor | None


class TargetSearch(TargetOptions, total=False):
    """Further arguments of `XTransformer.beam_search`."""

    beams: int
    return_beams_and_scores: bool
    length_penalty: float
    stochastic: bool


class JoinOptions(TypedDict, total=False):
    """Arguments of `XTransformer.from_models` besides the two."""

    tie_token_emb: bool
    ignore_index: int
    pad_value: int
    cross_attn_tokens_dropout: float
    start_token: int | None
    generation: GenerationOptions | None


class XTransformer(Drawn, Pretrained, nn.Module):
    """An encoder, and a decoder that attends to its output (Vaswani et al., arXiv:1706.03762).

    Args:
        dim: features of both streams; a pattern may say it too.
        pattern: both in one text, `(a f)*6 => (a c f)*6`, in place of the keywords that say the order of blocks. Any
            setting of a stack may be given beside it, for both or with `enc_` or `dec_` for one, as `compile` takes it.
        tie_token_emb: one embedding matrix for the tokens of both.
        ignore_index, pad_value: as AutoregressiveWrapper has them.
        cross_attn_tokens_dropout: in training, the share of the encoder's tokens that the decoder does not see, drawn
            for each row (as Perceiver AR does, arXiv:2202.07765).
        start_token: what a target starts with where `generate` is given no other start.
        generation: arguments of `generate` by name, which it takes unless it is given others, such as
            {"eos_token": 2, "forced_tokens": {0: 0, -1: 2}}.
        deepnorm: DeepNorm for both, with the constants of an encoder-decoder (Wang et al., arXiv:2203.00555).
        return_tgt_loss: True, as older releases of x-transformers have it: `forward` gives the target's loss.
        keywords: `enc_` or `dec_` and a keyword of TransformerWrapper (`enc_num_tokens`, `dec_max_seq_len`) or of
            Encoder and Decoder (`enc_depth`, `dec_heads`, `enc_pattern`). A decoder's pattern has a `c`. What is so
            anyway may be said (`dec_cross_attend=True`).

    Attributes:
        encoder: a TransformerWrapper without logits, or another that `from_models` takes.
        reads_images: whether the encoder does.
        decoder: an AutoregressiveWrapper around a TransformerWrapper.
        ignore_index, pad_value, start_token, generation: as given.

    Raises:
        TypeError: an unknown keyword (the message names the nearest one), one that does not fit, or one is missing.
        PatternError, UserError: a pattern or a value is at fault, or two clash.
    """

    encoder_class, decoder_class = Encoder, Decoder
    model_class, wrapper_class = TransformerWrapper, AutoregressiveWrapper

    @spells(keywords_of_both())
    def __init__(
        self,
        *,
        dim: int | None = None,
        pattern: str | Pattern | None = None,
        tie_token_emb: bool = False,
        ignore_index: int = -100,
        pad_value: int = 0,
        cross_attn_tokens_dropout: float = 0.0,
        start_token: int | None = None,
        generation: GenerationOptions | None = None,
        deepnorm: bool = False,
        return_tgt_loss: bool = True,
        **keywords: Unpack[Seq2SeqKeywords],
    ) -> None:
        super().__init__()
        if return_tgt_loss is not True:
            raise TypeError("XTransformer gives the target's loss; for logits, call its decoder.net with context=")
        options: dict[str, Any] = {
            "ignore_index": ignore_index,
            "pad_value": pad_value,
            "cross_attn_tokens_dropout": cross_attn_tokens_dropout,
            "start_token": start_token,
            "generation": generation,
        }
        if pattern is not None:
            both = {"dim": dim, "tie_token_emb": tie_token_emb or None, "deepnorm": deepnorm or None}
            graph = graph_of_both(
                pattern, {name: value for name, value in both.items() if value is not None} | keywords
            )
            self._join(*self._models(graph.streams()), tie_token_emb=graph.tie_token_emb, **options)
            return
        if dim is None:
            raise TypeError("XTransformer() needs dim=")
        check_pair_keywords(keywords)
        enc_tokens, enc_stack = keywords_of_side("enc_", keywords)
        dec_tokens, dec_stack = keywords_of_side("dec_", keywords)
        if "pattern" not in dec_stack:
            dec_stack["cross_attend"] = True
        if deepnorm:
            enc_stack, dec_stack = with_deepnorm(enc_stack, dec_stack)
        with _named("encoder"):
            stack = self.encoder_class(dim=dim, **enc_stack)
            encoder = self.model_class(attn_layers=stack, return_only_embed=True, **enc_tokens)
        with _named("decoder"):
            net = self.model_class(attn_layers=self.decoder_class(dim=dim, **dec_stack), **dec_tokens)
        self._join(encoder, net, tie_token_emb=tie_token_emb, **options)

    def _join(
        self,
        encoder: Any,
        net: Any,
        *,
        tie_token_emb: bool = False,
        ignore_index: int = -100,
        pad_value: int = 0,
        cross_attn_tokens_dropout: float = 0.0,
        start_token: int | None = None,
        generation: GenerationOptions | None = None,
    ) -> None:
        """Take two models that fit."""
        with _named("encoder"):
            _check_encoder(encoder)
        with _named("decoder"):
            if not isinstance(uncompiled(net), TransformerWrapper):
                raise TypeError(f"it must be a TransformerWrapper, not {type(net).__name__}")
            if not net.attn_layers.reads_context:
                raise UserError("its blocks have no 'c', which attends to the encoder's output")
        if (width := _width(encoder)) != (wanted := net.graph.dim_context):
            reads = f"the decoder's cross-attention reads {wanted}"
            raise UserError(f"the encoder gives vectors of {width} features, and {reads}")
        if tie_token_emb:
            _check_tie(encoder.graph, net.graph)
            net.token_emb = encoder.token_emb
        self.encoder, self.reads_images = encoder, encoder.graph.reads == "images"
        self.decoder = self.wrapper_class(net, ignore_index=ignore_index, pad_value=pad_value)
        self.ignore_index, self.pad_value = self.decoder.ignore_index, self.decoder.pad_value
        self.cross_attn_tokens_dropout = real("cross_attn_tokens_dropout", cross_attn_tokens_dropout, least=0, below=1)
        self.start_token = None if start_token is None else whole("start_token", start_token)
        if self.start_token is not None and self.start_token >= net.num_tokens:
            raise UserError(f"start_token={start_token} is no token of the decoder, which has {net.num_tokens}")
        self.generation: GenerationOptions = {**(generation or {})}
        check_names(self.generation, GenerationOptions.__annotations__, "generation has an unknown argument")
        Generation(**self.generation).check(net)

    @classmethod
    def from_models(
        cls, encoder: SequenceModel | ViTransformerWrapper, decoder: TransformerWrapper, **options: Unpack[JoinOptions]
    ) -> Self:
        """Of an encoder and a decoder that are there.

        Args:
            encoder: gives vectors of the decoder's width: a TransformerWrapper with `return_only_embed`, or a
                ContinuousTransformerWrapper, which reads vectors, as Whisper's encoder does (arXiv:2212.04356), or a
                ViTransformerWrapper without pool and classes, whose patches are described (TrOCR, arXiv:2109.10282).
            decoder: a causal TransformerWrapper with cross-attention.
            options: tie_token_emb, ignore_index, pad_value, cross_attn_tokens_dropout, start_token, generation.

        Raises:
            TypeError: one of them is something else, or an option is unknown.
            UserError: they do not fit each other, or a value is at fault.
        """
        check_names(options, JoinOptions.__annotations__, "XTransformer.from_models() got an unknown argument")
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        model._join(encoder, decoder, **options)
        return model

    @classmethod
    def from_graphs(cls, graphs: Mapping[str, BlockGraph], **arguments: Any) -> Self:
        """Of the graphs "encoder" and "decoder", or of one that has both, with the options of `from_models`."""
        if {*graphs} == {""}:
            arguments = {"tie_token_emb": graphs[""].tie_token_emb} | arguments
            graphs = graphs[""].streams()
        if set(graphs) != {"encoder", "decoder"}:
            raise UserError(f"this is no encoder-decoder, as {cls.__name__} is; xt_blocks.from_pretrained reads either")
        encoder, decoder = cls._models(graphs)
        if forced := (arguments.get("generation") or {}).get("forced_tokens"):  # in JSON, steps are texts
            forced = {int(step): token for step, token in forced.items()}
            arguments["generation"] = {**arguments["generation"], "forced_tokens": forced}
        return cls.from_models(encoder, decoder, **arguments)

    @classmethod
    def _models(
        cls, graphs: Mapping[str, BlockGraph]
    ) -> tuple[SequenceModel | ViTransformerWrapper, TransformerWrapper]:
        owner = _ENCODERS.get(graphs["encoder"].reads or "", cls.model_class)
        return owner.from_graphs({"": graphs["encoder"]}), cls.model_class.from_graphs({"": graphs["decoder"]})

    def arguments(self) -> dict[str, Any]:
        for name in ("filter_logits_fn", "generator"):
            if self.generation.get(name) is not None:
                raise UserError(f"the model's generation has a {name}, which no file can hold; take it out to save")
        said = ("tie_token_emb", "ignore_index", "pad_value", "cross_attn_tokens_dropout", "start_token", "generation")
        return {name: getattr(self, name) for name in said}

    @property
    def graphs(self) -> dict[str, BlockGraph]:
        """The encoder's graph and the decoder's."""
        return {"encoder": self.encoder.graph, "decoder": self.decoder.net.graph}

    @property
    def graph(self) -> BlockGraph:
        """Both as one graph, which reads the encoder's."""
        return self.decoder.net.graph.with_encoder(self.encoder.graph, tie_token_emb=self.tie_token_emb)

    @property
    def tie_token_emb(self) -> bool:
        """Whether one embedding serves both."""
        theirs, ours = (getattr(net, "token_emb", None) for net in (self.encoder, self.decoder.net))
        return theirs is not None and ours is not None and theirs.weight is ours.weight

    @property
    def pattern(self) -> str:
        """Both as one text: `(a f)*6 => (a c f)*6`."""
        return self.graph.pattern

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        src_prepend_embeds: Tensor | None = None,
        src_prepend_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        condition: Tensor | None = None,
        src_condition: Tensor | None = None,
    ) -> Tensor:
        """Mean cross-entropy of each target token given the source and the target tokens before it, in nats.

        Args:
            src: (batch, source) tokens; (batch, source, dim_in) vectors or (batch, channels, height, width) images
                where the encoder reads these.
            tgt: (batch, target + 1) tokens, the first of which is not predicted.
            mask: (batch, source) bool, True = a real token; the decoder sees no padding either.
            attn_mask: bool, which place of the source sees which, as TransformerWrapper takes it.
            src_prepend_embeds: (batch, p, emb_dim) in front of the source, a vision transformer's patches in PaLI
                (Chen et al., arXiv:2209.06794). The decoder attends to their encodings too.
            src_prepend_mask: (batch, p) bool, True = a real one.
            tgt_mask: (batch, target + 1) bool, True = a real token; padding is not predicted.
            condition: (batch, dim_condition), for adaptive norms and layer scales, of both sides where both have some;
                or (batch, target, dim_condition), of each token that the decoder reads.
            src_condition: (batch, dim_condition) or (batch, source, dim_condition), the encoder's own, in its place.

        Raises:
            ValueError: an argument has a wrong type or shape.
        """
        theirs, ours = conditions(self.encoder, self.decoder.net, condition, src_condition)
        with auxiliary_losses() as further:  # the decoder adds its own
            context, context_mask = self.encode(src, mask, attn_mask, src_prepend_embeds, src_prepend_mask, theirs)
        if self.training and self.cross_attn_tokens_dropout > 0:
            context_mask = self._some_of(context, context_mask)
        read: ContextInputs = {"context": context, "context_mask": context_mask, "condition": ours}
        return further.added_to(self.decoder(tgt, mask=tgt_mask, **read))

    @names_nearest
    @spells(p for p in keywords_of(AutoregressiveWrapper.stream) if p.name not in _READ_BY_DECODER)
    def stream(
        self,
        seq_in: Tensor,
        seq_out_start: PromptTokens | None = None,
        seq_len: int | None = None,
        mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        src_prepend_embeds: Tensor | None = None,
        src_prepend_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        condition: Tensor | None = None,
        src_condition: Tensor | None = None,
        **generation: Unpack[TargetOptions],
    ) -> Stream:
        """The tokens of `generate`, one a step, as `AutoregressiveWrapper.stream` gives them."""
        source = (mask, attn_mask, src_prepend_embeds, src_prepend_mask, condition, src_condition)
        start, steps, read = self._start(seq_in, seq_out_start, seq_len, tgt_mask, *source)
        options: Any = {**self.generation, **generation}
        return self.decoder.stream(start, steps, mask=tgt_mask, **read, **options)

    def _start(
        self, seq_in: Tensor, start: PromptTokens | None, seq_len: int | None, tgt_mask: Tensor | None, *source: Any
    ) -> tuple[PromptTokens, int, ContextInputs]:
        """What a target starts with, how long it becomes, and what the decoder attends to."""
        mask, attn_mask, embeds, embeds_mask, condition, src_condition = source
        theirs, ours = conditions(self.encoder, self.decoder.net, condition, src_condition)
        with evaluating(self.encoder):
            context, context_mask = self.encode(seq_in, mask, attn_mask, embeds, embeds_mask, theirs)
        if start is None:
            if self.start_token is None:
                raise TypeError("generate() needs seq_out_start: the model has no start_token")
            start = context.new_full((context.shape[0], 1), self.start_token, dtype=torch.int64)
        if seq_len is None:
            if self.decoder.max_seq_len is None:
                raise TypeError("generate() needs seq_len: the decoder is of any length")
            seq_len = max(0, self.decoder.max_seq_len - read_prompts(start, tgt_mask).tokens.shape[1])
        return start, seq_len, {"context": context, "context_mask": context_mask, "condition": ours}

    @names_nearest
    @takes_what(stream)
    def generate(self, *inputs: Any, **options: Any) -> Tensor:
        """Target tokens that go on from a start. The source is encoded once, and its keys and values are computed once.

        Args:
            seq_in: (batch, source) tokens, (batch, source, dim_in) vectors or (batch, channels, height, width) images.
            seq_out_start: (batch, n) tokens, or (n,) for one row, or a list of (n,) of different lengths; n at least 1.
                By default each row starts with start_token.
            seq_len: how many tokens to add; None: as many as the decoder's max_seq_len leaves.
            mask, attn_mask, src_prepend_embeds, src_prepend_mask, condition, src_condition: as in training.
            tgt_mask: (batch, n) bool of the start, True = a real token; padded on the left.
            generation: the other arguments of AutoregressiveWrapper.generate: temperature, top_k, eos_token, ...; those
                that are not given are as the model's `generation` has them.

        Returns:
            (batch, seq_len) new tokens, or (seq_len,); fewer where every row has drawn eos_token.
        """
        return self.stream(*inputs, **options).collect()

    @names_nearest
    @spells(p for p in keywords_of(AutoregressiveWrapper.beam_search) if p.name not in _READ_BY_DECODER)
    def beam_search(
        self,
        seq_in: Tensor,
        seq_out_start: PromptTokens | None = None,
        seq_len: int | None = None,
        mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        src_prepend_embeds: Tensor | None = None,
        src_prepend_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        condition: Tensor | None = None,
        src_condition: Tensor | None = None,
        **options: Unpack[TargetSearch],
    ) -> Any:
        """The likeliest target that a search finds, with the inputs of `generate` and the arguments of
        `AutoregressiveWrapper.beam_search`."""
        source = (mask, attn_mask, src_prepend_embeds, src_prepend_mask, condition, src_condition)
        start, steps, read = self._start(seq_in, seq_out_start, seq_len, tgt_mask, *source)
        own = {name: value for name, value in self.generation.items() if name not in DRAWING}
        given: Any = {**own, **options}
        return self.decoder.beam_search(start, steps, mask=tgt_mask, **read, **given)

    def encode(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        prepend_embeds: Tensor | None = None,
        prepend_mask: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """What the decoder attends to: the encoded source (batch, p + places, dim) and its mask (batch, p + places).

        The arguments are those of `forward` about the source. Its places are its tokens or vectors, unless a conv_stem
        halves their number, or the patches of an image, after its class token.

        Raises:
            ValueError: an argument has a wrong type or shape, or is none of images.
        """
        check_tensor("src", src)
        if self.reads_images:
            others = (mask, attn_mask, prepend_embeds, prepend_mask)
            names = ("mask", "attn_mask", "src_prepend_embeds", "src_prepend_mask")
            if given := [name for name, value in zip(names, others, strict=True) if value is not None]:
                raise ValueError(f"{given[0]} is of a sequence, and the encoder reads images")
            return self.encoder(src, condition=condition), None
        src = self.encoder.checked_sequence(src)
        check_mask("mask", mask, src)
        context = self.encoder(
            src,
            mask=mask,
            attn_mask=attn_mask,
            prepend_embeds=prepend_embeds,
            prepend_mask=prepend_mask,
            condition=condition,
        )
        prepended = 0 if prepend_embeds is None else prepend_embeds.shape[1]
        places = context.shape[1] - prepended
        return context, joined_masks(
            prepend_mask, prepended, self.encoder.places_of(mask), places, src.shape[0], src.device
        )

    def _some_of(self, context: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, context) bool, True at a random part of the real tokens, at least one of each row."""
        real = torch.ones(context.shape[:2], dtype=torch.bool, device=context.device) if mask is None else mask
        return without_share(real, self.cross_attn_tokens_dropout)


@contextmanager
def _named(side: str) -> Iterator[None]:
    """Errors about the arguments of one side say which; an error in a pattern shows its text already."""
    try:
        yield
    except (TypeError, UserError) as error:
        if isinstance(error, PatternError):
            raise
        raise type(error)(f"the {side}: {error}") from error


def _check_encoder(encoder: Any) -> None:
    """Raise unless it is a model that gives vectors of a sequence or an image, and attends to nothing else."""
    if isinstance(uncompiled(encoder), ViTransformerWrapper):
        if encoder.pools or encoder.to_classes is not None:
            raise UserError("it gives one vector of an image: leave pool, pooler, dim_out and num_classes out")
        return
    if not isinstance(uncompiled(encoder), SequenceModel):
        kinds = "a TransformerWrapper, a ContinuousTransformerWrapper or a ViTransformerWrapper"
        raise TypeError(f"it must be {kinds}, not {type(encoder).__name__}")
    if encoder.attn_layers.reads_context:
        raise UserError("its blocks attend to a context ('c'), and there is none to give it")
    if encoder.graph.reads == "tokens" and not encoder.return_only_embed:
        raise UserError("it gives logits: set return_only_embed")


def _width(encoder: Any) -> int:
    """Features of what an encoder gives."""
    dim_out = encoder.graph.nx.nodes[encoder.graph.end]["dim_out"]
    width: int = encoder.graph.dim if dim_out is None else dim_out
    return width


def _check_tie(encoder: BlockGraph, decoder: BlockGraph) -> None:
    """Raise UserError unless one embedding serves both."""
    if encoder.reads != "tokens":
        raise UserError(f"tie_token_emb is set, but the encoder reads {encoder.reads}")
    for name in ("num_tokens", "emb_dim", "l2norm_embed"):
        theirs, ours = (
            graph.emb_dim if name == "emb_dim" else graph.nx.nodes[graph.start][name] for graph in (encoder, decoder)
        )
        if theirs != ours:
            raise UserError(f"tie_token_emb is set, but enc_{name}={theirs} and dec_{name}={ours} differ")
