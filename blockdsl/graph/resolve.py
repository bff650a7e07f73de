"""Settings and blocks brought together: every block with all its options, and the stack's own settings.

Owns which value wins (block, then keyword, then `set`, then default) and the checks that need both the block
and the stack. No graph yet, so `blockdsl check` gets by without networkx.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple

from ..errors import PatternError, Span, UserError
from ..language.expand import BlockSpec, ParallelSpec, ReadSpec, Spec, tie_in_words
from ..language.labels import LabelSpec
from ..language.pattern import Pattern, parse
from ..registry.content import REMEMBERED, Content, Values, content
from ..registry.kinds import Kind, kinds
from ..registry.norms import norm_clash, norm_of, reads_condition
from ..registry.options import Value, by_name
from ..registry.positions import POSITION_NEEDS, POSITION_SETTINGS, SCHEMES, Scheme, meaningful, readers
from ..registry.rotary import SWITCH as ROTARY
from ..registry.settings import block_default, checked_keywords, deepnorm_settings, resolved
from ..registry.streams import SIDES, checked_pair_keywords, implied, names_for
from ..registry.tokens import clash, model_of


@dataclass(frozen=True, slots=True)
class ResolvedBlock:
    """A block with nothing left open; copies of a repeat are one, and blocks that are written alike share their dicts.

    `given` holds which of the options its own text sets; `positions` the schemes that it reads, and what the node of
    each says. `scale` multiplies the branch before the residual add. `reads` has the index of the label that each
    option names which takes one.
    """

    kind: str
    options: Values
    given: dict[str, Value]
    positions: tuple[tuple[Scheme, dict[str, Value]], ...]
    shift: int
    scale: float
    tie: str | None
    stage: int
    span: Span
    reads: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResolvedBranches:
    """Parallel branches, each a chain of steps."""

    branches: tuple[tuple[ResolvedStep, ...], ...]


ResolvedStep = ResolvedBlock | ReadSpec | LabelSpec | ResolvedBranches


@dataclass(frozen=True)
class ResolvedPattern:
    """A resolved pattern: `settings` are the stack's own, `given` all that were set by text, keyword or deepnorm."""

    pattern: Pattern
    settings: dict[str, Value]
    given: dict[str, Value]
    steps: tuple[ResolvedStep, ...]

    wired: bool = False  # by residual attention or options that take a label: the compiler has more to check
    encoder: ResolvedPattern | None = None  # of two streams: the one whose output this reads
    tie_token_emb: bool = False  # of two streams

    @property
    def dim(self) -> int:
        dim = self.settings["dim"]
        assert isinstance(dim, int)
        return dim


def resolve(pattern: Pattern | str, **keywords: Any) -> ResolvedPattern:
    """The pattern with settings from its text and from keywords; a keyword wins.

    Raises:
        PatternError: the fault is in the text.
        TypeError: an unknown keyword; the message names the nearest.
        UserError: a keyword's value is out of range, or settings clash.
    """
    pattern = pattern if isinstance(pattern, Pattern) else parse(pattern)
    if pattern.encoder is not None:
        return _pair(pattern, pattern.encoder, checked_pair_keywords(keywords))
    return _stream(pattern, checked_keywords(keywords))


def _pair(pattern: Pattern, before: Pattern, keywords: dict[str, Any]) -> ResolvedPattern:
    """Two streams: each with what is said of it, and the second with the first."""
    blocks = sum(1 for _ in pattern.expansion.blocks())
    encoder = _side("enc_", before, keywords, decoder=blocks)
    width = encoder.settings["dim"] if encoder.settings["dim_out"] is None else encoder.settings["dim_out"]
    decoder = _side("dec_", pattern.decoder, keywords, {"cross_attn_dim_context": width})
    tie = (pattern.settings | keywords).get("tie_token_emb", False)
    return replace(decoder, pattern=pattern.decoder, encoder=encoder, tie_token_emb=bool(tie))


def _side(
    side: str, pattern: Pattern, keywords: Mapping[str, Any], more: Mapping[str, Value] = {}, decoder: int | None = None
) -> ResolvedPattern:
    """One of two streams; `more`: settings that it has where nothing else is said."""
    own = {name: keywords[written] for name, written in names_for(side, keywords).items()}
    said = pattern.settings | own
    implied_here = {name: value for name, value in implied(side, said).items() if name not in said}
    usual = {name: value for name, value in more.items() if name not in said and value != said.get("dim")}
    try:
        return _stream(pattern, {**usual, **implied_here, **own}, decoder)
    except PatternError as error:
        at_fault = [name for name, span in pattern.setting_spans.items() if span == error.span]
        if at_fault:
            other = next(prefix for prefix in SIDES if prefix != side)
            hint = f"this is about the {SIDES[side]}; a setting of the other stream alone is {other}{at_fault[0]}"
            raise PatternError(error.text, error.span, error.problem, error.hint or hint) from None
        raise
    except UserError as error:
        raise type(error)(f"the {SIDES[side]}: {error}") from error


def _stream(pattern: Pattern, keywords: dict[str, Any], decoder: int | None = None) -> ResolvedPattern:
    """One stream; `decoder`: how many blocks the stream has that reads it, if one does."""
    given = pattern.settings | keywords
    settings = resolved(given)
    if settings["dim"] is None:
        raise UserError("a stack needs dim: give dim=512, or write set dim=512; in the pattern")
    if settings["deepnorm"]:
        given = deepnorm_settings(sum(1 for _ in pattern.expansion.blocks()), decoder) | given
    resolver = _Resolver(pattern, given, settings, keywords.keys())
    resolver.check_norms()
    steps = tuple(resolver.step(spec) for spec in pattern.expansion.specs)
    resolver.check_stack()
    wiring = {"residual_attn", *(option.name for kind in kinds().values() for option in kind.reading_options())}
    wired = any(judged.options.get(name) for judged in resolver.seen.values() for name in wiring)
    return ResolvedPattern(pattern, settings, given, steps, wired)


_DEEPNORM = "deepnorm is a post-norm configuration"


class _Judged(NamedTuple):
    """A block by all that its own text says of it.

    Attributes:
        refused: schemes that it says it does not use.
        meaningful: settings of positions that mean something to it.
        table: of value embeddings, and its features.
    """

    kind: str
    options: Values
    given: dict[str, Value]
    positions: tuple[tuple[Scheme, dict[str, Value]], ...]
    shift: int
    refused: Set[str]
    meaningful: Set[str]
    table: tuple[Value, int] | None


@lru_cache(maxsize=8)
def _judgements(settings: Content) -> dict[Hashable, _Judged]:
    """Of blocks in a stack with these settings; from one key of a text to the next, most are the same."""
    return {}


class _Resolver:
    def __init__(
        self, pattern: Pattern, given: Mapping[str, Value], settings: Mapping[str, Value], keywords: Set[str]
    ) -> None:
        self.pattern, self.given, self.settings, self.keywords = pattern, given, settings, keywords
        self.defaults: dict[str, dict[str, Value]] = {}
        self.seen: dict[tuple[str, str, int | None, bool], _Judged] = {}  # by what a block says
        settings_said = content(given)
        self.judgements = _judgements(settings_said) if type(settings_said) is Content else {}
        if len(self.judgements) > REMEMBERED:
            self.judgements.clear()
        self.known: dict[tuple[int, bool], ResolvedBlock] = {}
        """By the id of the spec, which copies of a repeat have in common and the pattern keeps."""
        self.tied: dict[str, ResolvedBlock] = {}
        self.tables: dict[Value, int] = {}  # of value embeddings → their features
        self.kinds = kinds()
        self.kinds_used: set[str] = set()
        self.schemes_used: set[str] = set()
        self.schemes_refused: set[str] = set()  # by blocks that say so
        self.settings_read = meaningful(settings)
        self.meaningful: dict[str, set[str]] = {}  # by what blocks say of positions

    def step(self, spec: Spec, after_first: bool = False) -> ResolvedStep:
        """`after_first`: a block of another branch reads the same stream and comes before it."""
        if isinstance(spec, ParallelSpec):
            return ResolvedBranches(
                tuple(
                    tuple(self.step(inner, i == 0 and (after_first or number > 0)) for i, inner in enumerate(branch))
                    for number, branch in enumerate(spec.branches)
                )
            )
        if isinstance(spec, LabelSpec | ReadSpec):
            return spec
        return self._block(spec, after_first)

    def _block(self, spec: BlockSpec, after_first: bool) -> ResolvedBlock:
        if (known := self.known.get((id(spec), after_first))) is not None:
            return known
        same = spec.kind, repr(spec.given), spec.shift, after_first
        if same not in self.seen:
            self.seen[same] = self._met(spec, same)
        judged = self.seen[same]
        alike = judged.kind, judged.options, judged.given, judged.positions, judged.shift
        block = ResolvedBlock(*alike, spec.scale, spec.tie, spec.stage, spec.span, spec.reads)
        self._check_tie(block)
        self.known[id(spec), after_first] = block
        return block

    def _met(self, spec: BlockSpec, same: tuple[str, str, int | None, bool]) -> _Judged:
        """A block that says what none before it does: what it means for the stack."""
        if spec.kind not in self.kinds:  # parsed before it was unregistered
            raise self._error(spec.span, f"unknown block '{spec.kind}'", f"kinds: {', '.join(sorted(self.kinds))}")
        key = self.kinds[spec.kind], same
        judged = self.judgements.get(key)
        if judged is None:
            judged = self.judgements[key] = self._judged(self.kinds[spec.kind], spec, same[-1])
        self.kinds_used.add(spec.kind)
        self.schemes_used |= {scheme.name for scheme, _ in judged.positions}
        self.schemes_refused |= judged.refused
        self.settings_read |= judged.meaningful
        if judged.table is not None:
            number, features = judged.table
            if (other := self.tables.setdefault(number, features)) != features:
                problem = f"value_embed={number} has {features} features here, and {other} before"
                raise self._error(spec.span, problem, "blocks that share a table have as many features of values")
        return judged

    def _judged(self, kind: Kind, spec: BlockSpec, after_first: bool) -> _Judged:
        """A block by itself: what is wrong with that is wrong wherever it stands."""
        if "context" in kind.inputs and "context" not in spec.reads and self.settings["context"] is False:
            problem = f"'{spec.kind}' ({kind.title}) without a context to attend to"
            raise self._error(spec.span, problem, "context=false says that the stack is given none")
        shift = self.settings["shift_tokens"] if spec.shift is None else spec.shift
        assert isinstance(shift, int)
        if shift and self._pieces(shift) > self.dim:
            problem = f"a shift of {shift} splits dim={self.dim} into {self._pieces(shift)} parts"
            raise self._error(spec.span, problem, "each part needs a feature: a wider stack or a smaller shift")
        of_positions = {option.name: option.setting or option.name for option in kind.position_options()}
        given = {name: name in spec.reads or value for name, value in spec.given.items() if name not in of_positions}
        said = {of_positions[name]: value for name, value in spec.given.items() if name in of_positions}
        options = self._options(kind, spec, given, after_first)
        self._check_direction(kind, spec, bool(options.get("bidirectional")))
        table = None
        if "value_embed" in kind.inputs and options["value_embed"] is not None:
            table = self._table(kind, spec, options)
        refused = {scheme.name for scheme in SCHEMES.values() if said.get(scheme.switch[0]) is False}
        own = {**said, **({ROTARY: options["rotary"]} if "rotary" in options else {})}
        known = set() if refused or own.get(ROTARY) is False else self._meaningful(own)
        for name in said:
            if name in POSITION_NEEDS and name not in known:
                needed = POSITION_NEEDS[name][0]
                raise self._error(spec.span, f"{name} is set, but it needs {'rotary' if needed == ROTARY else needed}")
        positions = self._positions(kind, spec, options, own)
        return _Judged(spec.kind, options, given, positions, shift, refused, known, table)

    def _check_direction(self, kind: Kind, spec: BlockSpec, bidirectional: bool) -> None:
        if bidirectional and self.settings["causal"]:
            problem = f"'{spec.kind}' ({kind.title}) is bidirectional, in a causal stack"
            raise self._error(spec.span, problem, "its tokens see later ones: leave bidirectional out, or causal")
        if kind.causal_only and not bidirectional and not self.settings["causal"]:
            problem = f"'{spec.kind}' ({kind.title}) in a stack that is not causal"
            both = f", or write {spec.kind}(bidirectional), a second one in reverse" if kind.both_ways else ""
            raise self._error(spec.span, problem, f"it runs only where no token sees a later one: set causal{both}")

    def _table(self, kind: Kind, spec: BlockSpec, options: Mapping[str, Value]) -> tuple[Value, int]:
        if (model := model_of(self.settings)) not in (None, "tokens"):
            problem = f"'{spec.kind}' ({kind.title}) reads embeddings of tokens, value_embed"
            raise self._error(spec.span, problem, f"the model reads {model}")
        return options["value_embed"], kind.value_features(self.dim, options)

    def _positions(
        self, kind: Kind, spec: BlockSpec, options: Values, own: Mapping[str, Value]
    ) -> tuple[tuple[Scheme, dict[str, Value]], ...]:
        """The schemes that a block reads which says this of them; rotary ones may be an option of its kind."""
        sizes = SimpleNamespace(dim=self.dim, **options)
        read = tuple((scheme, scheme.of(here, sizes)) for scheme, here in readers(kind, self.settings, own))
        for scheme, attributes in read:
            misfit = scheme.misfit(SimpleNamespace(**attributes), SimpleNamespace(**options))
            if misfit:
                raise self._error(spec.span, misfit.problem, misfit.hint)
        return read

    def _meaningful(self, own: Mapping[str, Value]) -> set[str]:
        """Settings of positions that mean something to a block that says this of them."""
        key = repr(own)
        if key not in self.meaningful:
            self.meaningful[key] = meaningful({**self.settings, **own})
        return self.meaningful[key]

    @property
    def dim(self) -> int:
        dim = self.settings["dim"]
        assert isinstance(dim, int)
        return dim

    def _pieces(self, shift: int) -> int:
        return shift + 1 if self.settings["causal"] else 2 * shift + 1

    def _options(self, kind: Kind, spec: BlockSpec, given: Mapping[str, Value], after_first: bool) -> Values:
        options = Values({**self._defaults(kind), **given})
        if not after_first:
            if given.get("shared_norm"):
                nothing = "shared_norm is set, but no branch before this one reads the same stream"
                raise self._error(spec.span, nothing, "it is for a later branch: (a & f(shared_norm))")
            options["shared_norm"] = False
        problem = self._against_deepnorm(options) or kind.clash(self.dim, options)
        if problem:
            raise self._clash(spec, problem)
        if kind.has_scores() and options["dim_head"] is None:
            heads = options["heads"]
            assert isinstance(heads, int)
            options["dim_head"] = self.dim // heads
        return options

    def _defaults(self, kind: Kind) -> dict[str, Value]:
        if kind.name not in self.defaults:
            declared = by_name(kind.all_options())
            self.defaults[kind.name] = {name: block_default(o, self.given) for name, o in declared.items()}
        return self.defaults[kind.name]

    def _clash(self, spec: BlockSpec, problem: str) -> UserError:
        """Point at the block where it says one of the options at fault, else at a setting of the text that does.

        Where the problem names no such option, point at the block if the text has a part in it; else it is the
        keywords'.
        """
        options, words = self.kinds[spec.kind].all_options(), {*re.findall(r"\w+", problem)}
        said = self.pattern.settings.keys() - self.keywords
        settings = [option.setting for option in options if option.name in words and option.setting in said]
        spans = [self.pattern.setting_spans[name] for name in settings if name in self.pattern.setting_spans]
        if spans and not words & spec.given.keys():
            return self._error(max(spans, key=lambda span: span.start), problem)
        if spec.given or {option.setting for option in options} & said:
            return self._error(spec.span, problem)
        return UserError(problem)

    def _against_deepnorm(self, options: Mapping[str, Value]) -> str | None:
        against = [name for name in ("pre_norm", "sandwich_norm") if self.settings["deepnorm"] and options[name]]
        return f"{against[0]} is set, but {_DEEPNORM}" if against else None

    def _error(self, span: Span, problem: str, hint: str = "") -> PatternError:
        return PatternError(self.pattern.source, span, problem, hint)

    def _check_tie(self, block: ResolvedBlock) -> None:
        if block.tie is None:
            return
        other = self.tied.setdefault(block.tie, block)
        if other.options != block.options:
            differ = sorted(name for name in block.options if block.options[name] != other.options[name])
            problem = f"{tie_in_words(block.tie)} has different options here than before: {', '.join(differ)}"
            raise self._error(block.span, problem, "tied blocks are the same kind with the same options")

    def check_norms(self) -> None:
        """What no block can mend: the stack's own norm is of one kind, too."""
        if clash := norm_clash(self.given):
            *names, problem = clash
            raise self._at_setting(problem, *names)
        for name in ("pre_norm", "sandwich_norm"):
            if self.settings["deepnorm"] and self.given.get(name):
                raise self._at_setting(f"{name} is set, but {_DEEPNORM}", name, "deepnorm")

    def check_stack(self) -> None:
        used = [self.kinds[name] for name in self.kinds_used]
        if self.settings["context"] and not any("context" in kind.inputs for kind in used):
            raise self._setting_error("context", "no block of the pattern attends to a context")
        conditioned = norm_of(self.given).adaptive or any(
            reads_condition(judged.options) for judged in self.seen.values()
        )
        for name in ("dim_condition", "adaptive_condition_mlp"):
            if self.settings[name] and not conditioned:
                raise self._setting_error(name, "no norm or layer scale reads a condition: set use_adaptive_layernorm")
        if "adaptive_condition_mlp_expansion" in self.given and not self.settings["adaptive_condition_mlp"]:
            raise self._setting_error("adaptive_condition_mlp_expansion", "it needs adaptive_condition_mlp")
        if self.given.get("shared_norm") and not any(after_first for *_, after_first in self.seen):
            raise self._setting_error("shared_norm", "the pattern has no parallel branches, as (a & f) has")
        for scheme in SCHEMES.values():
            if scheme.on(self.settings) and scheme.name not in self.schemes_used | self.schemes_refused:
                switch = next(name for name in scheme.switch if self.settings[name])
                raise self._setting_error(switch, f"no block of the pattern uses {scheme.title}")
        if self.settings["rotary_xpos"] and self.given.get(ROTARY) is False:
            raise self._setting_error("rotary_xpos", f"{ROTARY} is false; xPos is rotary positions with a decay")
        for option in POSITION_SETTINGS:
            needed = POSITION_NEEDS.get(option.name, ())
            if needed and self.settings[option.name] != option.default and option.name not in self.settings_read:
                raise self._setting_error(option.name, f"it needs {needed[0]}")
        if found := clash(model_of(self.settings), self.settings, self.dim, self.schemes_used):
            raise self._setting_error(*found)

    def _setting_error(self, name: str, problem: str) -> UserError:
        return self._at_setting(f"{name} is set, but {problem}", name)

    def _at_setting(self, problem: str, *names: str) -> UserError:
        """Point at the first of these settings that the text has; else they are keywords."""
        for name in names:
            if name in self.pattern.setting_spans:
                return self._error(self.pattern.setting_spans[name], problem)
        return UserError(problem)
