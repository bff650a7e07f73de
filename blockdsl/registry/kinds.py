"""The registry of block kinds: what a block is called, its options, its inputs, its cost and its module.

Self-attention `a`, cross-attention `c` and feedforward `f` are registered in `builtin`, the way a user registers a
kind of their own:

    import blockdsl
    import torch
    import torch.nn.functional as F
    from blockdsl import Kind, Option, State
    from torch import nn

    class DepthwiseConv(nn.Module):
        def __init__(self, dim, kernel, causal):
            super().__init__()
            self.ends = (kernel - 1, 0) if causal else ((kernel - 1) // 2, kernel // 2)
            self.conv = nn.Conv1d(dim, dim, kernel, groups=dim)

        def forward(self, x, mask=None, cache=None):
            if mask is not None:                           # (batch, seq), True = a real token; None: all are
                x = x.masked_fill(~mask[..., None], 0.0)
            if cache is None:
                x = F.pad(x, (0, 0, *self.ends))
            else:                                          # x goes on after the tokens of earlier calls
                x = torch.cat((cache.read("tail"), x), dim=1)
                cache.write("tail", x[:, x.shape[1] - self.ends[0] :])
            return self.conv(x.transpose(1, 2)).transpose(1, 2)

    blockdsl.register(Kind(
        name="dwconv",
        title="depthwise convolution",
        prefix="dwconv",                                   # stack settings are called dwconv_kernel, ...
        options=(
            Option("kernel", int, 7, "width of the kernel", setting="dwconv_kernel", least=1),
            Option("causal", bool, False, "no token sees a later one", setting="causal"),
        ),
        inputs=("mask", "cache"),                          # what the module is handed beside x
        shapes=lambda o: {"conv.weight": (o.dim, 1, o.kernel), "conv.bias": (o.dim,)},
        flops=lambda o, sizes: 2 * sizes.batch * sizes.seq * o.dim * o.kernel,
        module=DepthwiseConv,                              # DepthwiseConv(dim=512, kernel=7, causal=False)
        state=lambda o: {"tail": State((o.kernel - 1, o.dim))} if o.causal else None,
    ))
    blockdsl.parse("(f/2 a dwconv f/2)*12")                # the Conformer

The module is built with `dim` and every option of its own by name; it is called with `x: (batch, seq, dim)` and
its declared inputs by name, and returns `(batch, seq, dim)`, the branch's update. Norm, token shift, scale,
stochastic depth and the residual add are around it and not its business. Under `init_gain` and `deepnorm` its linear
layers and convolutions are initialised with the gain; a module that does it itself has `init_xavier(gain)`. It is
given as the class itself or as "package.module:Class", which is imported only when a graph is lowered.

`state` declares what the block keeps between decoding steps (see `blockdsl.registry.state.State`): the cache is
allocated and counted by it, and copied, and with it the state goes from one segment of a text to the next. The module
finds it under the input `cache`, its own for each node, so that ties and branches need no thought:

    cache.read("tail")                                     # (batch, *shape): zeros at first, then what was written
    cache.write("tail", new)                               # for the next call; to be written at each
    keys, values = cache.append(keys=k, values=v)          # of pieces per token: the new ones → all that are kept
    cache.write("keys", k); cache.read("keys")             # of pieces per context token: in the first call; later

What was read stays as it is until the whole step is done, so that a step that failed can be run again. `cache` is None
where nothing comes before x or after it. A kind whose tokens need nothing of each other declares `lambda o: {}`, and
one without `state` cannot be decoded one token at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any, NamedTuple

from ..errors import UserError
from .injection import INJECTION_OPTIONS, injection_clash
from .norms import NORM_OPTIONS, NORM_PLACES, misplaced_norm, norm_clash
from .options import Option, Value, by_name, check_names, checked_values, plain_values, whole
from .residual_streams import STREAM_OPTIONS, streams_clash
from .rotary import ROTARY_OPTIONS
from .split import Split
from .state import State

Shape = tuple[int, ...]

# What a module may ask to be handed beside x. `xt_blocks.runtime.context` says what each of them is.
INPUTS = (
    *("mask", "attend", "context", "rotary", "context_rotary", "bias", "scores", "memory", "cache", "observed"),
    "value_embed",
)

# Options that a kind has when it asks for an input: the graph reads them.
INPUTS_NEED = {"rotary": ("dim_head",), "bias": ("dim_head", "heads"), "scores": ("heads", "residual_attn")} | {
    "value_embed": ("value_embed", "kv_heads", "value_dim_head")
}


class Sizes(NamedTuple):
    """The shape of a call: rows, tokens a row, and tokens of the context a row."""

    batch: int
    seq: int
    context: int


Words = str | Mapping[Any, str]
"""What is said of an option's value; see `Kind.words`."""

CONCAT = "concat"
"""An option of blocks that read the stream and what it was at a label, concatenated: the module gets 2·dim features."""

# Options that say how large scores are beside the tokens → what they count. Blocks that add scores are alike in them.
SCORE_SIZES = {"heads": "heads", "num_mem_kv": "memory key-values"}


@dataclass(frozen=True, eq=False)  # two that are registered are two, and hashing all formulas takes long
class Kind:
    """A kind of residual block.

    Args:
        name: how a pattern writes it.
        title: what it is, in a few words.
        options: its own options, in the order canonical text gives them.
        inputs: which of INPUTS its module is called with.
        shapes: options → the shape of each parameter of the module, by name.
        flops: options, sizes → floating-point operations of one forward pass, two a multiply-add.
        module: the torch module's class, or "package.module:Class".
        active: options → how many of its parameters one token uses, as of experts that are chosen; None: all.
        state: options → the pieces that it keeps between decoding steps, by name; no pieces: it needs none. None, or
            where it gives None: it cannot decode stepwise.
        causal_only: no token sees a later one, as in a recurrence over the tokens; in a stack that is not causal its
            blocks are `bidirectional`, where it is handed nothing of the tokens but `mask` and `cache`.
        segments: it may run on one segment of a text after another (Transformer-XL), where its state, if that is per
            row, or its input `memory` goes from each to the next.
        check: options → a sentence on what clashes, or None.
        derive: options → those whose default follows from others, by name.
        prefix: what the stack's settings for its options start with.
        steps: options → what it does one after another, each as a few words and what enters there ("context", "rotary",
            "bias", "scores" or nothing); drawings show them.
        summary: options → the few facts that drawings have under its title, as `32 heads × 128`, `SwiGLU 14,336`.
        words: option → what drawings say of a value that neither facts nor steps tell: a text in which {} is the value,
            or value → text, under ... for all others. Of the default nothing is said, or of the value whose text is
            empty. An option without words is said as a pattern has it.
        shown: names of options that drawings show wherever they are not none, as how many experts there are.
        gives: what its blocks hand to later ones beside the stream, for options that take a label, `Option.reads`. A
            block of which some of it is read gets the input `gives`, the names, and returns `LayerOutput.gives`.
        saved: options, sizes, the inputs that a block has, and "scores" if others read its own → numbers that its
            module saves for the backward pass, its own input among them; None: unknown, and plans leave it out.
        given_sizes: options → of what it gives or reads of that, the sizes in words, in which two blocks must agree;
            or a sentence on why a block with these options gives none.
        split: its completed options and a number of ranks → the share of one rank, or a sentence on why it is whole on
            every rank; None: it is whole on every rank.
        also: words that people write for it, for `did you mean`.
        area: of the reference, where its options stand; empty: its title.
        builtin: it came with the package and stays.
    """

    name: str
    title: str
    options: tuple[Option, ...]
    shapes: Callable[[Any], Mapping[str, Shape]]
    flops: Callable[[Any, Sizes], float]
    module: str | Callable[..., Any]
    inputs: tuple[str, ...] = ()
    active: Callable[[Any], int | None] = lambda options: None
    saved: Callable[[Any, Sizes, Collection[str]], float] | None = None
    state: Callable[[Any], Mapping[str, State] | None] | None = None
    causal_only: bool = False
    segments: bool = True
    check: Callable[[Any], str | None] = lambda options: None
    derive: Callable[[Any], Mapping[str, Value]] = lambda options: {}
    prefix: str = ""
    steps: Callable[[Any], Sequence[tuple[str, str]]] | None = None
    summary: Callable[[Any], Sequence[str]] | None = None
    words: Mapping[str, Words] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    given_sizes: Callable[[Any], Mapping[str, Mapping[str, Value]] | str] = lambda options: {}
    split: Callable[[Any, int], Split | str] | None = None
    also: tuple[str, ...] = ()
    area: str = ""
    builtin: bool = False

    def __reduce__(self) -> Any:
        """A registered kind is pickled by its name, as formulas may be lambdas, and looked up where it is loaded."""
        return (kind_of, (self.name,)) if _KINDS.get(self.name) is self else super().__reduce__()

    def __post_init__(self) -> None:
        if self.both_ways:
            for field, formula in twice_if_bidirectional(self).items():
                object.__setattr__(self, field, formula)

    @cached_property
    def both_ways(self) -> bool:
        """Whether its blocks may be bidirectional: two modules, of which one reads the tokens in reverse."""
        own = BIDIRECTIONAL.name in by_name(self.options)
        return self.causal_only and {*self.inputs} <= {"mask", "cache"} and not own

    def all_options(self) -> tuple[Option, ...]:
        """Its own options and those that every block has, of which its module may have some too."""
        return self._all_options

    @cached_property
    def _all_options(self) -> tuple[Option, ...]:  # every model asks every kind, many times
        further = (*((BIDIRECTIONAL,) if self.both_ways else ()), *BLOCK_OPTIONS)
        return (*self.options, *(option for option in further if option not in self.options))

    def reading_options(self) -> tuple[Option, ...]:
        """Those that take a label; the module gets what each reads, where it is on, as the input of its name."""
        return self._reading_options

    @cached_property
    def _reading_options(self) -> tuple[Option, ...]:
        return tuple(option for option in self.options if option.reads)

    def position_options(self) -> tuple[Option, ...]:
        """What its blocks may say of the positions that they read; a graph says it on the positions' nodes."""
        if "rotary" not in self.inputs:
            return ()
        own = by_name(self.options)
        return tuple(option for option in ROTARY_OPTIONS if option.name not in own)

    def written_options(self) -> tuple[Option, ...]:
        """All that may stand in a block's parenthesis."""
        return tuple(self.written_by_name.values())

    @cached_property
    def written_by_name(self) -> dict[str, Option]:
        """The same by name."""
        own = (option for option in self.all_options() if option not in OF_ALL_BLOCKS)
        return by_name((*own, *self.position_options()))

    def has_scores(self) -> bool:
        """Whether it has heads with scores, to which positions may say something: dim_head=none is then dim / heads."""
        return self._has_scores

    @cached_property
    def _has_scores(self) -> bool:
        return "scores" in self.inputs and "dim_head" in by_name(self.options)

    def states(self, options: Any) -> Mapping[str, State] | None:
        """What it keeps between decoding steps with these `completed` options; None: it cannot decode stepwise.

        Raises:
            UserError: it keeps something, but its module is not handed the cache.
        """
        pieces = None if self.state is None else self.state(options)
        if pieces and "cache" not in self.inputs:
            raise UserError(f"kind '{self.name}' declares state, so it needs the input cache")
        return pieces

    def clash(self, dim: int, options: Mapping[str, Value]) -> str | None:
        """What is wrong with all options of a block that are each in range, or None."""
        given = self._given(dim, options, 1)
        return _block_check(given) or self.check(given)

    def completed(self, dim: int, options: Mapping[str, Value], uses: int = 1) -> Any:
        """Checked options of a block with attribute access, those that follow from others among them.

        And `dim`, features of the stream; `dim_in`, those that the module reads, with what it reads by `concat`; and
        `uses`, how many blocks share its parameters, of one that is `by_use`.
        """
        given = self._given(dim, options, uses)
        return SimpleNamespace(**{**vars(given), **self.derive(given)})

    def value_features(self, dim: int, options: Mapping[str, Value]) -> int:
        """Features of the values of a token, and of the embedding that the input `value_embed` is."""
        o = self.completed(dim, options)
        features: int = o.kv_heads * o.value_dim_head
        return features

    def _given(self, dim: int, options: Mapping[str, Value], uses: int) -> Any:
        dim_in = 2 * dim if options.get(CONCAT) else dim
        # in Python's own types, whatever numbers the graph was edited with: those of NumPy overflow in silence
        return SimpleNamespace(**{"dim": dim, "dim_in": dim_in, "uses": uses, **plain_values(options)})

    def by_use(self, options: Mapping[str, Value]) -> bool:
        """Whether each use of a tied block has parameters of its own beside those that it shares."""
        return any(options[option.name] != option.default for option in self._by_use)

    @cached_property
    def _by_use(self) -> tuple[Option, ...]:
        return tuple(option for option in self.options if option.by_use)

    def complete(self, dim: int, given: Mapping[str, Any], caller: str, uses: int = 1) -> Any:
        """The same from its own options as a caller gives them: checked, with defaults for the others.

        `caller` is what the error of an unknown option speaks of, `Attention()`.

        Raises:
            TypeError: an unknown option; the message names the nearest one.
            UserError: a value out of range, or options that clash.
        """
        known = by_name(self.options)
        check_names(given, known, f"{caller} got an unknown argument")
        dim = whole("dim", dim, 1)
        options = {name: option.default for name, option in known.items()} | checked_values(given, known)
        if problem := self.check(self._given(dim, options, uses)):
            raise UserError(problem)
        return self.completed(dim, options, uses)


# An option of the kinds that are `both_ways`.
BIDIRECTIONAL = Option(
    "bidirectional",
    bool,
    False,
    "a second module reads the tokens in reverse, and the results are added, in a stack that is not causal "
    "(Vision Mamba, arXiv:2401.09417; Caduceus, arXiv:2403.03234)",
    setting="bidirectional",
    area="stack",
)
WAYS = ("forwards", "backwards")
"""The two modules of a bidirectional block."""


class _Formula:
    """A formula of a kind's options that knows of bidirectional blocks."""

    def __init__(self, plain: Callable[..., Any], twice: Callable[[Any], Any]) -> None:
        self.plain, self.twice = plain, twice

    def __call__(self, options: Any, *further: Any) -> Any:
        out = self.plain(options, *further)
        return self.twice(out) if getattr(options, BIDIRECTIONAL.name, False) else out


def twice_if_bidirectional(kind: Kind) -> dict[str, _Formula]:
    """The kind's formulas, which count both modules of a bidirectional block; it keeps no state."""
    twice: dict[str, Callable[[Any], Any]] = {
        "shapes": lambda shapes: {f"{way}.{name}": shape for way in WAYS for name, shape in shapes.items()},
        "flops": lambda flops: 2 * flops,
        "saved": lambda numbers: 2 * numbers,
        "state": lambda pieces: None,
        "summary": lambda facts: [*facts, "both ways"],
        "steps": lambda steps: [*steps, ("+ the same of the tokens in reverse", "")],
        "split": lambda split: split if isinstance(split, str) else split.renamed(WAYS),
    }
    formulas = {name: (getattr(kind, name), both) for name, both in twice.items()}
    return {
        name: formula if isinstance(formula, _Formula) else _Formula(formula, both)
        for name, (formula, both) in formulas.items()
        if formula is not None
    }


OF_ALL_BLOCKS = (*STREAM_OPTIONS, *INJECTION_OPTIONS)
"""Options that the blocks of a stack have alike; settings say them, and no block by itself."""


def _features(o: Any) -> int:
    """Saved of a token by what multiplies the branch by feature: the branch."""
    return int(o.dim)


def _of_orthogonal(o: Any) -> int:
    """The branch, its product with the stream, the stream's length and their ratio."""
    return int(o.dim) + 3


def _of_gate(o: Any) -> int:
    """The branch, and gates and candidates of a GRU cell."""
    return 7 * int(o.dim)


BLOCK_WORDS: Mapping[str, Words] = {
    "layer_scale": {0: "LayerScale from zero", ...: "LayerScale, at first {}"},
    "use_adaptive_layerscale": "adaptive LayerScale",
    "layer_dropout": "stochastic depth {}",
    "scale_residual": "learned gain of the residual",
    "scale_residual_constant": "residual × {}",
    "orthog_residual": "orthogonal residual updates",
    "hyper_conn_mix": {"free": "unconstrained hyper-connections", "sum": "hyper-connections by sum"},
    "hyper_conn_sinkhorn_iters": "{} Sinkhorn iterations",
    "learned_reinject_input_gate": "gated injection",
    "init_gain": {1: "Xavier init", ...: "Xavier init × {}"},
    "checkpoint": "activation checkpointing by {}",
    "bidirectional": "both ways",
}
"""`Kind.words` of the options that every block has."""

# Options that every block has, whatever its kind.
BLOCK_OPTIONS = (
    *NORM_PLACES,
    *NORM_OPTIONS,
    Option(
        "layer_scale",
        float,
        None,
        "a learned gain for each feature of the branch, at first this (CaiT, arXiv:2103.17239); none: without",
        setting="layer_scale",
        least=0,
        optional=True,
        saved=_features,
    ),
    Option(
        "use_adaptive_layerscale",
        bool,
        False,
        "branches times sigmoid(W·condition + b) by feature, at first sigmoid(-2) (DiT's adaLN-Zero, arXiv:2212.09748)",
        setting="use_adaptive_layerscale",
        saved=_features,
    ),
    Option(
        "layer_dropout",
        float,
        0.0,
        "probability that a row skips the branch in training: stochastic depth (arXiv:1603.09382)",
        setting="layer_dropout",
        least=0,
        below=1,
        area="regularisers",
    ),
    Option(
        "scale_residual",
        bool,
        False,
        "a learned gain for each feature of the residual (NormFormer, arXiv:2110.09456)",
        setting="scale_residual",
    ),
    Option(
        "scale_residual_constant",
        float,
        1.0,
        "a fixed factor of the residual (DeepNet's alpha, arXiv:2203.00555); 0: the branch is the new stream",
        setting="scale_residual_constant",
        least=0,
    ),
    Option(
        "branch_scale",
        float,
        1.0,
        "a fixed factor of the branch, beside what /2 says (Granite: 0.22, arXiv:2408.13359)",
        setting="branch_scale",
        above=0,
    ),
    Option(
        "orthog_residual",
        bool,
        False,
        "the branch without its part along the stream, for each token (arXiv:2505.11881)",
        setting="orthog_residual",
        saved=_of_orthogonal,
    ),
    Option(
        "gate_residual",
        bool,
        False,
        "a GRU cell joins branch and residual in place of the add (GTrXL, arXiv:1910.06764)",
        setting="gate_residual",
        saved=_of_gate,
    ),
    *OF_ALL_BLOCKS,
    Option(
        "init_gain",
        float,
        None,
        "Xavier init of the value path with this gain (DeepNet's beta, arXiv:2203.00555); none: torch's init",
        setting="init_gain",
        above=0,
        optional=True,
    ),
    Option(
        "checkpoint",
        str,
        None,
        "what the backward pass recomputes instead of keeping: the block, or consecutive blocks of a stage as one "
        "(arXiv:1604.06174); none: nothing",
        setting="checkpoint",
        choices=("block", "stage"),
        optional=True,
        area="memory in training",
    ),
)


def _block_check(o: Any) -> str | None:
    if clash := norm_clash(vars(o)):
        return clash[-1]
    if o.use_adaptive_layerscale and o.layer_scale is not None:
        return "use_adaptive_layerscale and layer_scale are both set; give one"
    for name in ("scale_residual", "gate_residual"):
        if o.scale_residual_constant == 0 and getattr(o, name):
            return f"{name} is set, but scale_residual_constant=0 leaves no residual"
    if getattr(o, CONCAT, False) and o.shared_norm:
        return "concat is set, but with shared_norm a branch reads what another block has normed"
    return misplaced_norm(o) or streams_clash(o) or injection_clash(o)


# The registry -----------------------------------------------------------------------------------------------------

_KINDS: dict[str, Kind] = {}  # `builtin` registers the first three


def kinds() -> dict[str, Kind]:
    """The registered kinds by name, in the order they were registered."""
    return dict(_KINDS)


def kind_of(name: str) -> Kind:
    """The kind with this name.

    Raises:
        UserError: there is none, as in a graph or a pattern older than `unregister`.
    """
    if name not in _KINDS:
        raise UserError(f"unknown block kind '{name}'; registered: {', '.join(sorted(_KINDS))}")
    return _KINDS[name]
