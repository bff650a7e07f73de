"""The public values, with all that can be done with them as thin methods: BlockGraph, GraphDiff, and `compile`.

Owns no logic: a graph is read by `graph`, costed by `graph.costs`, judged by `graph.lint`, compared by `graph.diff` and
drawn by `draw`, none of which knows this file.
"""

from __future__ import annotations

import re
from dataclasses import fields
from os import PathLike
from typing import TYPE_CHECKING, Any, overload

from .draw.forms.images import HasPicture
from .errors import GraphError, PatternError, UserError, did_you_mean
from .graph import costs, digest, json, lint, loops, mup, select, to_pattern, tokens, written
from .graph.compile import build
from .graph.diff import Difference
from .graph.editable import Editable
from .graph.in_words import faults_in_words
from .graph.resolve import ResolvedPattern, resolve
from .language.join import join, of_both
from .language.pattern import Pattern, parse
from .plan.mesh import Mesh
from .plan.report import Plan
from .plan.search import plan_training
from .plan.setup import Setup
from .registry.keywords import parameters, spells
from .registry.settings import table
from .registry.tokens import MODELS, checked, clash, model_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .measurement import Measurement
    from .signatures import CompileSettings


@overload
def compile(pattern: Pattern | str, **settings: Unpack[CompileSettings]) -> BlockGraph: ...
@overload
def compile(pattern: Pattern | str, **settings: Any) -> BlockGraph: ...  # those of registered kinds too
@spells(parameters(table()))
def compile(pattern: Pattern | str, **settings: Any) -> BlockGraph:
    """The graph of a pattern.

    Args:
        pattern: a Pattern, or its text.
        settings: the stack's settings, `dim=512, heads=8, causal=True, ...`; one given here wins over the text's
            `set`. `blockdsl.registry.settings.table()` has them all.

    Raises:
        PatternError: the text is at fault.
        TypeError: an unknown setting; the message names the nearest.
        UserError: a setting's value is out of range, or settings clash.
    """
    try:
        graph = made(resolve(pattern, **settings), pattern)
    except PatternError as error:
        if found := re.fullmatch(r"\s*(zoo:([\w.-]+))\s*", error.text):
            problem = f"{found[1]} is for the command line: here it is blockdsl.zoo.entry({found[2]!r}).graph()"
            raise UserError(problem) from None
        raise
    for each in filter(None, (graph.encoder, graph)):
        each._written(edited=False)
    return graph


def made(stack: ResolvedPattern, pattern: Pattern | str) -> BlockGraph:
    """The graph of a pattern that is resolved, for who will not edit it: its text would not follow.

    Raises as `compile` does.
    """
    graph = _compiled(stack)
    if stack.encoder is None:
        return graph
    whole = pattern if isinstance(pattern, Pattern) else parse(pattern)
    return graph._joined(_compiled(stack.encoder), stack.tie_token_emb, str(whole)).lint()


def _compiled(stack: ResolvedPattern) -> BlockGraph:
    """The graph of one stream."""
    graph = BlockGraph(build(stack))
    lint.check_built(graph)
    model = model_of(stack.settings)
    if model is None:
        return graph
    given = {option.name: stack.given[option.name] for option in MODELS[model] if option.name in stack.given}
    return graph._around(model, given, "compile").lint()


@faults_in_words
class BlockGraph(Editable, HasPicture):
    """A stack of blocks as a graph.

    Attributes:
        nx: the networkx.DiGraph; see `blockdsl.graph.nodes` for its nodes and edges.
    """

    _edited = "", ""  # a fingerprint, and the text found for it

    @property
    def pattern(self) -> str:
        """The graph's text: what it was made from or, after an edit, what `to_pattern` writes.

        Of an edited graph that has no text it is "edited from" what it was made from.
        """
        text: str = self.nx.graph.get("pattern", "")
        if not written.is_edited(self.nx):
            return text
        if self._edited[0] != (now := written.fingerprint(self.nx)):
            try:
                found = str(self.to_pattern())
            except UserError:
                found = written.EDITED + text
            self._edited = now, found
        return self._edited[1]

    def lint(self) -> BlockGraph:
        """Check that the graph can be lowered; returns it.

        Raises:
            GraphError: it cannot; the message lists every fault.
        """
        lint.check(self)
        return self

    def with_tokens(self, num_tokens: int, max_seq_len: int | None, **options: Any) -> BlockGraph:
        """A copy that embeds tokens and gives logits.

        Args:
            max_seq_len: longest sequence; None or 0: any, without learned positions.
            options: the others of `TOKEN_OPTIONS`. Absolute positions give way to rotary ones and T5's bias.

        Raises:
            TypeError: an unknown option; the message names the nearest.
            UserError: a value is out of range, or options clash.
            GraphError: the graph is at fault.
        """
        return self._with("tokens", {"num_tokens": num_tokens, "max_seq_len": max_seq_len, **options}, "with_tokens")

    def with_vectors(self, max_seq_len: int | None, **options: Any) -> BlockGraph:
        """A copy that reads and gives vectors; `options` are the others of `VECTOR_OPTIONS`, errors as above."""
        return self._with("vectors", {"max_seq_len": max_seq_len, **options}, "with_vectors")

    def with_images(
        self, image_size: int | tuple[int, int], patch_size: int | tuple[int, int], **options: Any
    ) -> BlockGraph:
        """A copy that reads images and gives classes; `options` are the others of `IMAGE_OPTIONS`, errors as above."""
        return self._with("images", {"image_size": image_size, "patch_size": patch_size, **options}, "with_images")

    def with_encoder(self, encoder: BlockGraph, tie_token_emb: bool = False) -> BlockGraph:
        """A copy whose cross-attention reads what another graph gives: `(a f)*6 => (a c f)*6`, made of its two sides.

        Args:
            encoder: gives vectors, one for each of its tokens.
            tie_token_emb: one embedding of tokens for both.

        Raises:
            GraphError: they do not fit, or this graph attends to no context; the message lists every fault.
        """
        said = of_both(encoder.causal, self.causal, tie_token_emb)
        text = join(encoder.nx.graph["pattern"], self.nx.graph["pattern"], said)
        edited = written.is_edited(self.nx) or written.is_edited(encoder.nx)
        return self._joined(encoder, tie_token_emb, text)._written(edited).lint()

    def with_loops(self, **counts: int) -> BlockGraph:
        """A copy whose tied units are repeated so often, by label: `with_loops(core=16)` of `(a f)@core*8`.

        It has the same parameters, and its first blocks the same names. Of two streams, a label is that of either.

        Raises:
            UserError: no unit has this label, or its repeats differ in more than their place.
        """
        encoder = self.encoder
        inside = {} if encoder is None else {k: n for k, n in counts.items() if k in loops.loop_labels(encoder)}
        own = {k: n for k, n in counts.items() if k not in inside or k in loops.loop_labels(self)}
        graph = loops.looped(self, own)
        if encoder is not None:
            graph.nx.nodes[graph.nodes("context")[0]]["encoder"] = loops.looped(encoder, inside).nx
        return graph.lint()

    def with_mup(self, base: BlockGraph) -> BlockGraph:
        """A copy with the scales of muP (arXiv:2203.03466): attention scores times 1/dim_head and tied logits times
        1/emb_dim, with factors that leave the base's own as they are. Weights and learning rates are `xt_blocks.mup`'s.

        Args:
            base: the same pattern at the width for which a learning rate was found.

        Raises:
            UserError: the base is another pattern.
        """
        return mup.scaled(self, base).lint()

    def width_roles(self, base: BlockGraph) -> dict[str, mup.Scaling]:
        """The muP role of what each block's kind declares, as `a0.to_out.weight`: its initial scale and learning rate.

        Args:
            base: as in `with_mup`; errors are the same.
        """
        return mup.roles(self, base)

    def _joined(self, encoder: BlockGraph, tie_token_emb: bool, pattern: str) -> BlockGraph:
        """A copy that reads what an encoder gives."""
        graph = self.copy()
        if not graph.nodes("context"):
            raise GraphError("the graph cannot be lowered:\n  it attends to no context, which an encoder would give it")
        graph.nx.nodes[graph.nodes("context")[0]].update(encoder=encoder.copy().nx, tie_token_emb=tie_token_emb)
        graph.nx.graph["pattern"] = pattern
        return graph

    def _with(self, model: str, given: dict[str, Any], caller: str) -> BlockGraph:
        return self._around(model, given, caller)._written(written.is_edited(self.nx)).lint()

    def _around(self, model: str, given: dict[str, Any], caller: str) -> BlockGraph:
        """A copy with a model around the stack."""
        settings = checked(model, given, caller)
        graph = self.copy()
        tokens.erase(graph)
        if found := clash(model, settings, graph.dim, tokens.block_schemes(graph)):
            raise UserError(f"{found[0]} is set, but {found[1]}")
        tokens.write(graph, model, settings, graph.dim)
        return graph

    def stack_alone(self) -> BlockGraph:
        """A copy without the model around the stack, from embedded sequence to normed output."""
        graph = self.copy()
        tokens.erase(graph)
        return graph._written(written.is_edited(self.nx))

    def _written(self, edited: bool) -> BlockGraph:
        """Keep the text as that of the graph as it now is, unless it was edited before."""
        if not edited:
            written.write(self.nx, self.nx.graph["pattern"])
        return self

    def model_options(self) -> dict[str, Any]:
        """What `with_tokens`, `with_vectors` or `with_images` was given, as the graph says it now."""
        return tokens.read(self)

    # Costs -------------------------------------------------------------------------------------------------------

    def parameters(self, active: bool = False) -> int:
        """How many parameters the lowered module has; tied ones count once.

        Args:
            active: only those that one token uses: of experts, those that are chosen for it.
        """
        return costs.parameters(self.lint(), active)

    def flops(self, seq_len: int, batch: int = 1, context_len: int | None = None) -> int:
        """Floating-point operations of one forward pass, two a multiply-add, as torch.utils.flop_counter counts.

        Args:
            seq_len: tokens a row; those of an image are its patches, whatever is asked for.
            batch: rows.
            context_len: tokens of the context a row; seq_len when not given.
        """
        return costs.flops(self.lint(), seq_len, batch, context_len)

    def kv_cache_bytes(
        self, seq_len: int, batch: int = 1, dtype: str = "float32", context_len: int | None = None
    ) -> int:
        """Bytes of keys and values that decoding keeps for `seq_len` tokens a row; under max_attend_past, of a window.

        Args:
            dtype: of the cache, by torch's name ("bfloat16") or as a torch dtype.
        """
        return costs.kv_cache_bytes(self.lint(), seq_len, batch, dtype, context_len)

    def plan(
        self, mesh: Mesh | str | None = None, *, gpus: int | None = None, seq_len: int, batch: int, **setup: Any
    ) -> Plan:
        """What training costs on many devices: memory, waiting and bytes sent, on one mesh or on all of `gpus` devices.

            print(graph.plan(gpus=64, memory="80GB", seq_len=8192, batch=1024))

        Args:
            mesh: "pp=2,fsdp=4,tp=2", see `blockdsl.Mesh`.
            gpus: how many devices; every mesh of so many is tried.
            seq_len, batch: tokens a row, and rows of a step over all devices.
            setup: memory="80GB", precision, optimizer, schedule, checkpoint, ...; see `blockdsl.plan.setup.Setup`.

        Raises:
            TypeError: an unknown argument; the message names the nearest.
            UserError: the mesh cannot run the model, or a value is out of range.
        """
        names = [field.name for field in fields(Setup)]
        for name in setup:
            if name not in names:
                raise TypeError(f"plan() got an unknown argument '{name}'; {did_you_mean(name, names)}".rstrip("; "))
        return plan_training(self, mesh, gpus, Setup(seq_len, batch, **setup))

    def digest(self) -> str:
        """64 hexadecimal digits, the same in every process for all graphs that are one model.

        Names of nodes, labels and ties do not count, nor do the order of insertion and the text it was made from;
        stages and their names do. `==` compares the same.

        Raises:
            GraphError: a node or an edge says of itself what it cannot, or there is a cycle.
        """
        return digest.digest(self)

    def select(self, selector: str) -> list[str]:
        """Nodes in the language's own words, in graph order: `a`, `f(glu)`, `@core`, `dec: a[0:6]`, `a:even`.

        Args:
            selector: see `blockdsl.graph.select`.

        Returns:
            names of nodes; those of an encoder start with `encoder.`.

        Raises:
            PatternError: the selector is wrong, or a part of it selects nothing.
        """
        found = select.select(self.streams(), selector)
        return [f"encoder.{node}" for node in found.pop("encoder", [])] + [n for own in found.values() for n in own]

    def diff(self, other: BlockGraph, seq_len: int = 1024) -> GraphDiff:
        """What differs from another graph; false when both are the same model.

        Args:
            seq_len: tokens a row that the costs before and after are given for.
        """
        if not isinstance(other, BlockGraph):
            raise TypeError(f"diff takes a BlockGraph, as compile gives, not {type(other).__name__}")
        return GraphDiff.between(self, other, seq_len)

    # Text --------------------------------------------------------------------------------------------------------

    def to_pattern(self) -> Pattern:
        """The graph's text, edits included: `compile(g.to_pattern()) == g`.

        What blocks have in common is said by `set`; what a node reads from further up than the node before it, by
        labels, under the names that are in the graph where they serve, and others where they do not.

        Raises:
            GraphError: the graph is at fault, or has no text; the message says why.
        """
        pattern = to_pattern.to_pattern(self)
        try:
            made = compile(pattern)
        except UserError as error:
            raise GraphError(f"the graph has no text: {error}") from None
        if made != self:
            raise GraphError(f"the graph has no text; the nearest is {pattern!s}, and differs:\n{made.diff(self)}")
        return pattern

    def to_text(self, ascii: bool = False, color: bool = False, overlay: Measurement | None = None) -> str:
        """The graph drawn with characters: stages, branches, ties, and each repeat once.

        Args:
            color: colour blocks by their kind, with the escape codes of a terminal.
            overlay: a measurement, whose numbers stand beside the blocks; beside a repeat, their range and mean.

        Raises:
            UserError: the overlay is of another graph.
        """
        from .draw.forms.streams import draw_text

        return draw_text(self, ascii=ascii, color=color, overlay=overlay)

    def to_dot(self, fold: bool = False) -> str:
        """The graph in Graphviz's language, for `dot -Tsvg` and the like: stages as clusters, edges by what they carry.

        Args:
            fold: draw each repeat once.
        """
        from .draw.forms.dot import draw

        return draw(self, fold)

    def to_mermaid(self, fold: bool = True) -> str:
        """The graph as a Mermaid flowchart, for Markdown that renders such.

        Args:
            fold: draw each repeat once; Mermaid refuses large charts.
        """
        from .draw.forms.mermaid import draw

        return draw(self, fold)

    def to_svg(
        self,
        path: str | PathLike[str] | None = None,
        *,
        unfold: bool | None = None,
        detail: str = "block",
        color: str = "kind",
        overlay: Measurement | None = None,
        seq_len: int = 1024,
        columns: int | None = None,
        theme: str = "auto",
    ) -> str:
        """The graph as an SVG picture, in which each repeat is drawn once.

        Args:
            path: a file to write it to.
            unfold: draw every block; None: only with an overlay. A folded repeat has the range of its numbers and their
                mean.
            detail: "block", or "op" for blocks opened to their operations.
            color: what a block's colour says: "kind", "params", "flops", "stage" or "tied".
            overlay: a measurement instead: its numbers are on the blocks, with a scale of colours below.
            seq_len: tokens a row, of the FLOPs.
            columns: how many a stack is drawn in; None: one, or several where it is long.
            theme: "light", "dark", or "auto" for that of whoever looks at it.

        Raises:
            UserError: an option has a value that it cannot have.
        """
        from .draw import side_by_side

        look: Any = {"unfold": unfold, "detail": detail, "color": color, "overlay": overlay, "seq_len": seq_len}
        return side_by_side(self.streams(), path, theme=theme, columns=columns, model=self, **look)

    def to_html(
        self,
        path: str | PathLike[str] | None = None,
        *,
        unfold: bool | None = None,
        detail: str = "block",
        color: str = "kind",
        overlay: Measurement | None = None,
        seq_len: int = 1024,
        dtype: Any = "float32",
    ) -> str:
        """The graph as one HTML page: the picture with search, the pattern's text, and each block's details.

        It asks for no other file and for no network.

        Args:
            path: a file to write it to.
            unfold: open it with every block drawn; the page folds and unfolds.
            detail, color, overlay: as in `to_svg`.
            seq_len: tokens a row, of the FLOPs and of the cache.
            dtype: of the cache, as in `kv_cache_bytes`.

        Raises:
            UserError: an option has a value that it cannot have.
        """
        from .draw import page

        look: Any = {"unfold": unfold, "detail": detail, "color": color, "overlay": overlay, "seq_len": seq_len}
        return page(self.streams(), path, **look, dtype=dtype, model=self)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        blocks = len(self.nodes("block")) + (0 if self.encoder is None else len(self.encoder.nodes("block")))
        text = self.pattern
        text = f"{written.EDITED}{text[len(written.EDITED) :]!r}" if text.startswith(written.EDITED) else repr(text)
        return f"BlockGraph({text}, dim={self.nx.graph.get('dim')}, blocks={blocks})"

    def __eq__(self, other: object) -> bool:
        """Whether both are one model, as `digest` has it; those that cannot be read are as their JSON is."""
        if not isinstance(other, BlockGraph):
            return NotImplemented
        try:
            return digest.canonical(self) == digest.canonical(other)
        except GraphError:
            return self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    # JSON --------------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The whole graph, with the text it has now; `BlockGraph.from_json` reads it back."""
        return json.to_json(self, self.pattern)

    @staticmethod
    def from_json(text: str | bytes) -> BlockGraph:
        """The graph that `to_json` wrote.

        Raises:
            GraphError: the text is not such a graph, or the graph is at fault.
            TypeError: it is no text.
        """
        graph = BlockGraph(json.from_json(text))
        try:
            graph.lint()
        except GraphError as error:
            if "has no attribute" not in str(error):
                raise
            hint = "an older version may have written it: compile its pattern again"
            raise GraphError(f"{error}\n  {hint}") from None
        written.read_back(graph.nx)
        return graph


class GraphDiff(Difference, HasPicture):
    """What `before.diff(after)` finds; false when they are the same model. Its attributes are those of `Difference`."""

    def to_text(self, color: bool = False) -> str:
        """For people; a change that many blocks have is one line. `color`: by a terminal's escape codes."""
        from .draw.words.diff import draw

        return draw(self, color)

    def to_svg(self, path: str | PathLike[str] | None = None, **options: Any) -> str:
        """Both graphs beside each other as an SVG picture: what belongs together at one height, what is alike folded.

        A sign on each block says whether it is changed, gone or new, and a changed one has what differs.

        Args:
            path: a file to write it to.
            options: `unfold`, `detail`, `seq_len`, `columns` and `theme`, as `BlockGraph.to_svg` has them.
        """
        from .draw import aligned

        return aligned(self, path, **options)

    def to_html(self, path: str | PathLike[str] | None = None, **options: Any) -> str:
        """The same as one HTML page.

        Args:
            path: a file to write it to.
            options: `unfold`, `detail`, `seq_len` and `dtype`, as `BlockGraph.to_html` has them.
        """
        from .draw import aligned_page

        return aligned_page(self, path, **options)

    def __str__(self) -> str:
        return self.to_text()
