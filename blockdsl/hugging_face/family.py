"""What a family of Hugging Face models is here: a pattern with its settings, and a table of weight names. No torch.

To add a family, put one file into this folder; it is found there. `llama.py` and `gpt2.py` are the examples.

    def _read(config: Config) -> dict[str, Component]:
        dim, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
        ...                                                 # every key is read, or `config.only` refuses other values
        return {"": Component("(a f)*12", settings, layers=12, weights=[...])}     # or "encoder" and "decoder"

    FAMILY = Family(
        model_types=("llama",), architectures=("LlamaForCausalLM",), base="LlamaModel", prefix="model.",
        source="arXiv:2302.13971", read=_read,
    )

A row of `weights` says which of our parameters is which of theirs. Names are those of modules: `Weight("a.norm", ...)`
is the weight, and the bias where ours has one; a parameter of another name is written whole (`"memory_tokens"`).
`a.` or the name of another kind is a block of layer {i}, in layers that have one; `f2.` is the second feedforward of a
layer. Blocks are counted in the order of the graph, tied ones (ALBERT) once. Other names are those of the model:
`token_emb`, `attn_layers.norm`, `to_logits`; `model.` is what is around several components (`model.logit_scale`).
Every parameter of ours needs a row, and every tensor of theirs one too: the rest is refused by name.

    whole                 Weight("a.norm", "model.layers.{i}.input_layernorm")              norms, embeddings, heads
    joined (LLaMA, BERT)  Weight("a.layer.to_qkv", ("….q_proj", "….k_proj", "….v_proj"), sizes=(q, kv, kv))
                          Weight("f.layer.to_hidden", ("….up_proj", "….gate_proj"))      without sizes: equal parts
    transposed (GPT-2)    Weight("a.layer.to_qkv", "h.{i}.attn.c_attn", TRANSPOSED)         its fused q|k|v is ours
    fused by head (NeoX)  Weight("a.layer.to_qkv", "….query_key_value", ByHead(heads, (d, d, d)))
      grouped (Falcon)    … ByHead(kv_heads, (heads // kv_heads * d, d, d))          rows of q, k, v in each group
    reordered (ViT)       Weight("patch_emb.project", "….projection", Reordered((dim, 3, p, p), (0, 2, 3, 1)))
    other shape           Weight("class_token", "….cls_token", Reordered((1, 1, dim)))
    zeros (BART)          Zeros("final_logits_bias", (1, vocabulary))                      another number is refused
    parts of one (SigLIP) Weight("….to_q.weight", "….in_proj_weight", PartOf(0, d)), Weight("….to_kv.weight", …)
      joined (Qwen3-Next) Weight("….to_qkv", (q and gate, k, v), (PartOf(0, d, ByHead(…)), Layout(), Layout()), sizes)
    of experts (Mixtral)  Weight("e.layer.to_out", "….experts.{e}.w2", experts=8)      theirs is a tensor for each
      joined              Weight("e.layer.to_hidden", ("….experts.{e}.w3", "….experts.{e}.w1"), experts=8)
    buffers of ours       Weight("e.layer.router.correction", "….e_score_correction_bias")    as parameters
    tied (LM heads)       Tied("lm_head.weight", "model.embed_tokens.weight")               may be in a file, or not
    buffers               Family(ignored=("rotary_emb.inv_freq",))                          ends of names
    other heads (BERT)    Family(unused=("cls.seq_relationship.weight",))                   left out, with a warning

An encoder and a decoder (T5, BART, Whisper) have their rows each, and are one text, `p => q`. A shared embedding is a
`Weight` of the encoder, and in the decoder a `Tied` for the name that a file may have there and the argument
`tie_token_emb`. How they generate is in the decoder's `arguments`, too.
Then a test: a table of configurations in tests/hugging_face/test_<family>.py, and an entry of the zoo.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..language.join import join
from ..registry.options import spell
from ..registry.settings import table
from .config import Config

if TYPE_CHECKING:
    from ..api import BlockGraph

# Rows of weights ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """How one of their tensors is stored, as it differs from ours. Both ways only move numbers."""

    def ours(self, theirs: Any) -> Any:
        """Their tensor with its numbers in our order; its shape may differ from our parameter's."""
        return theirs

    def theirs(self, ours: Any) -> Any:
        """The inverse."""
        return ours


@dataclass(frozen=True)
class Transposed(Layout):
    """(in, out), as GPT-2's Conv1D has it; a bias stays."""

    def ours(self, theirs: Any) -> Any:
        return theirs.T if theirs.ndim == 2 else theirs

    def theirs(self, ours: Any) -> Any:
        return self.ours(ours)


@dataclass(frozen=True)
class ByHead(Layout):
    """Rows in groups of heads, each of which has some for every part: q, k, v, q, k, v, ... Ours: all q, all k, all v.

    Args:
        groups: how many.
        parts: rows of each part in a group.
    """

    groups: int
    parts: tuple[int, ...]

    def ours(self, theirs: Any) -> Any:
        grouped = theirs.reshape(self.groups, sum(self.parts), *theirs.shape[1:])
        return _join([part.flatten(0, 1) for part in grouped.split(list(self.parts), dim=1)])

    def theirs(self, ours: Any) -> Any:
        pieces = ours.split([self.groups * rows for rows in self.parts])
        by_group = [
            piece.reshape(self.groups, rows, *ours.shape[1:]) for piece, rows in zip(pieces, self.parts, strict=True)
        ]
        return _join(by_group, 1).flatten(0, 1)


@dataclass(frozen=True)
class Reordered(Layout):
    """Axes in another order, as a convolution's kernel that is a linear layer's matrix here; a bias stays.

    Args:
        shape: theirs.
        axes: of theirs, in our order; none: as they are.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...] = ()

    def ours(self, theirs: Any) -> Any:
        return theirs.permute(self.axes or tuple(range(theirs.ndim))) if theirs.ndim == len(self.shape) else theirs

    def theirs(self, ours: Any) -> Any:
        if ours.numel() != prod(self.shape):
            return ours
        axes = self.axes or tuple(range(len(self.shape)))
        inverse = sorted(range(len(axes)), key=axes.__getitem__)
        return ours.reshape([self.shape[axis] for axis in axes]).permute(inverse)


@dataclass(frozen=True)
class PartOf(Layout):
    """Some rows of theirs, whose others are another of our parameters: the rows of the table that name it, in order.

    Args:
        start, stop: the first, and the one after the last.
        whole: how the whole of theirs is stored; rows are counted in our order.
    """

    start: int
    stop: int
    whole: Layout = field(default_factory=Layout)

    def ours(self, theirs: Any) -> Any:
        return self.whole.ours(theirs)[self.start : self.stop]


TRANSPOSED = Transposed()


def _join(tensors: Sequence[Any], axis: int = 0) -> Any:
    """Tensors one after another along an axis: torch's `cat`, without an import of torch."""
    shape = list(tensors[0].shape)
    shape[axis] = sum(tensor.shape[axis] for tensor in tensors)
    out, start = tensors[0].new_empty(shape), 0
    for tensor in tensors:
        out.narrow(axis, start, tensor.shape[axis]).copy_(tensor)
        start += tensor.shape[axis]
    return out


@dataclass(frozen=True)
class Weight:
    """One of our parameters, or the weight and bias of a module, from one or several of theirs.

    Args:
        ours: its name; see the module's head.
        theirs: their names, {i} the layer, {e} the expert; several are joined along the first axis.
        layout: how each of theirs is stored, or several, one for each.
        sizes: rows of each of theirs; empty: equal parts.
        experts: how many experts have tensors of these names, whose number is the first axis of ours, or what {e} is
            for each; none: no experts.
    """

    ours: str
    theirs: str | tuple[str, ...]
    layout: Layout | tuple[Layout, ...] = field(default_factory=Layout)
    sizes: tuple[int, ...] = ()
    experts: int | Sequence[int] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        names = (self.theirs,) if isinstance(self.theirs, str) else self.theirs
        if self.experts is None:
            return names
        numbers = range(self.experts) if isinstance(self.experts, int) else self.experts
        return tuple(name.replace("{e}", str(number)) for number in numbers for name in names)

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """One for each of `names`."""
        return self.layout if isinstance(self.layout, tuple) else (self.layout,) * len(self.names)


@dataclass(frozen=True)
class Tied:
    """A tensor that a file may have, and that is another one: `name` is `of`."""

    name: str
    of: str


@dataclass(frozen=True)
class Zeros:
    """A tensor that has no place in our model, and is all zeros in files whose models are ours."""

    name: str
    shape: tuple[int, ...]


Row = Weight | Tied | Zeros

# Activations that a feedforward has without their name, or by a switch.
_SHORTER: dict[Any, dict[str, Any]] = {
    "gelu": {"ff_activation": None},
    "silu": {"ff_activation": None, "ff_swish": True},
    "relu_squared": {"ff_activation": None, "ff_relu_squared": True},
}

# Families ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Component:
    """A stack with the model around it.

    Args:
        pattern: its blocks, `(a f)*12`.
        settings: of the stack and of the model; those at their default say nothing and are left out of the text.
        weights: the rows.
        layers: how many times the rows with {i} repeat, or where layers differ the kinds of each one's blocks,
            ("m f", "a f"); tied layers count once.
        arguments: of a decoder, those of `XTransformer.from_models`: start_token, generation, ...
    """

    pattern: str
    settings: Mapping[str, Any]
    weights: Sequence[Row]
    layers: int | Sequence[str]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The whole model as one text: `set dim=512, ...; (a f)*12`.

        Raises:
            UserError: it needs a setting that there is not.
        """
        known = table()
        if lacking := [name for name in self.settings if name not in known]:
            raise UserError(f"the configuration needs {' and '.join(lacking)}, which is no option here")
        settings = {**self.settings, **_SHORTER.get(self.settings.get("ff_activation"), {})}
        meant = {"ff_inner": 4 * self.settings["dim"]}  # where nothing is said
        said = {n: v for n, v in settings.items() if v not in (known[n].default, meant.get(n, known[n].default))}
        return f"set {', '.join(f'{name}={spell(value)}' for name, value in said.items())}; {self.pattern}"


@dataclass(frozen=True)
class Family:
    """Models of one kind.

    Args:
        model_types: the values of `model_type` that are read.
        architectures: the classes that can be read, the usual one first.
        base: the class without a head.
        prefix: what names start with in files of classes with a head; files of `base` have none.
        source: the paper.
        read: configuration → its parts by name: "" alone, or "encoder" and "decoder".
        ignored: ends of the names of buffers that a file may have.
        unused: ends of the names of weights that a file may have and that are of another head; each is warned of.
        other_names: parts of names, and what files of other releases have in their place.
        amended: configuration and the names of a file's tensors, ties once → the configuration that says this file.
    """

    model_types: tuple[str, ...]
    architectures: tuple[str, ...]
    base: str
    prefix: str
    source: str
    read: Callable[[Config], Mapping[str, Component]]
    ignored: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    other_names: tuple[tuple[str, str], ...] = ()
    amended: Callable[[Mapping[str, Any], Collection[str]], Mapping[str, Any]] = lambda config, names: config


@dataclass(frozen=True)
class Reading:
    """What a configuration says.

    Attributes:
        config: as it was given.
        family: whose table of weights it is.
        architecture: the class whose weights a file has.
        parts: the stacks by name: "" alone, "encoder" and "decoder", or "image" and "text".
        numbers: the keys that are numbers, as the configuration has them.
    """

    config: Mapping[str, Any]
    family: Family
    architecture: str
    parts: Mapping[str, Component]
    numbers: str

    @property
    def base(self) -> bool:
        """Whether it is the class without a head."""
        return self.architecture == self.family.base

    @property
    def texts(self) -> dict[str, str]:
        """The model as one text, called "": `p => q` of an encoder and a decoder. Of two encoders, each by its name."""
        texts = {name: part.text for name, part in self.parts.items()}
        if {*texts} != {"encoder", "decoder"}:
            return texts
        tied = self.parts["decoder"].arguments.get("tie_token_emb", False)
        return {"": join(texts["encoder"], texts["decoder"], {"tie_token_emb": True} if tied else {})}

    def graphs(self) -> dict[str, BlockGraph]:
        """Each text as a graph.

        Raises:
            UserError: there is no such model, as its numbers do not go together.
        """
        from ..api import compile

        try:
            return {name: compile(text) for name, text in self.texts.items()}
        except UserError as error:
            raise UserError(f"the configuration says {self.numbers}; in our words:\n{error}") from error
