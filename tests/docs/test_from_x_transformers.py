"""The page for those who come from x-transformers: what it says at a glance holds, and its lists are whole."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import xt_blocks
import xt_blocks.x_transformers
from blockdsl.registry.tokens import TOKEN_OPTIONS
from xt_blocks import Decoder, Memories, TransformerWrapper
from xt_blocks.models.layers import stack_keywords

from .pages import DOCS

PAGE = DOCS / "from-x-transformers.md"
HERE = {*stack_keywords(), *(option.name for option in TOKEN_OPTIONS), "attn_layers"}


def section(title: str) -> str:
    """The text under a heading."""
    return PAGE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


# What the page says at a glance ----------------------------------------------------------------------------------------

SIZES = {"dim": 16, "depth": 1, "heads": 2}
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 2], [2, 7, 1, 8, 2, 1]])
CHECKS: dict[str, Callable[[Any, bool], None]] = {}


def row(title: str) -> Callable[[Callable[[Any, bool], None]], Callable[[Any, bool], None]]:
    """A check of a row of the table: of a package, and whether it is the one that is like x-transformers."""

    def kept(check: Callable[[Any, bool], None]) -> Callable[[Any, bool], None]:
        CHECKS[title] = check
        return check

    return kept


def model_of(package: Any, stack: dict[str, Any] | None = None, **options: Any) -> Any:
    torch.manual_seed(0)
    layers = package.Decoder(**SIZES, **(stack or {}))
    return package.TransformerWrapper(**{"num_tokens": 20, "max_seq_len": 8} | options, attn_layers=layers).eval()


def drawing_by_number(package: Any) -> Any:
    """A generator whose likelier tokens are the larger ones."""
    net = model_of(package)
    with torch.no_grad():
        net.to_logits.weight.zero_()
        net.to_logits.bias.copy_(torch.linspace(0, 1, 20))
    return package.AutoregressiveWrapper(net)


@row("`attn_flash`")
def flash(package: Any, alike: bool) -> None:
    options = package.Decoder(**SIZES).graph.nx.nodes["a0"]["options"]
    assert options["flash"]
    package.Decoder(**SIZES, attn_flash=True, residual_attn=True, attn_talking_heads=True)(torch.zeros(1, 2, 16))


@row("an argument without effect")
def no_effect(package: Any, alike: bool) -> None:
    wanted = pytest.warns(UserWarning, match="attn_dim_head") if alike else pytest.raises(TypeError, match="dim_head")
    with wanted:
        package.Encoder(**SIZES, dim_head=8)


@row("sampling")
def sampling(package: Any, alike: bool) -> None:
    drawn = drawing_by_number(package).generate(torch.zeros(200, 1, dtype=torch.long), 4).unique()
    assert len(drawn) == (2 if alike else 20)


@row("filters and temperature")
def order_of_filters(package: Any, alike: bool) -> None:
    """The nucleus of half of the probability is smaller after a temperature below one."""
    prompt, cold = torch.zeros(400, 1, dtype=torch.long), {"temperature": 0.2}
    half = {"filter_logits_fn": "top_p", "filter_kwargs": {"thres": 0.5}} if alike else {"top_p": 0.5}
    p = torch.linspace(0, 1, 20).softmax(dim=0) if alike else (torch.linspace(0, 1, 20) / 0.2).softmax(dim=0)
    size = int((p.flip(0).cumsum(dim=0) < 0.5).sum()) + 1
    drawn = drawing_by_number(package).generate(prompt, 4, **half, **cold).unique()
    assert drawn.min() >= 20 - size
    assert len(drawn) > size - 3


@row("`eos_token` in the prompt")
def eos_in_the_prompt(package: Any, alike: bool) -> None:
    assert drawing_by_number(package).generate(torch.zeros(1, 2, dtype=torch.long), 5, eos_token=0, top_k=1).shape == (
        1,
        5,
    )


@row("past `max_seq_len`")
def window(package: Any, alike: bool) -> None:
    trainer = package.AutoregressiveWrapper(model_of(package))
    tokens = torch.cat((TOKENS, trainer.generate(TOKENS, 6, temperature=0.0)), dim=1)
    assert torch.equal(trainer.net(tokens[:, -9:-1])[:, -1].argmax(dim=-1), tokens[:, -1])


@row("prompts of different lengths")
def prompts(package: Any, alike: bool) -> None:
    trainer = package.AutoregressiveWrapper(model_of(package))
    short, long = TOKENS[0, :3], TOKENS[1]
    alone = torch.stack([trainer.generate(prompt, 2, temperature=0.0) for prompt in (short, long)])
    assert torch.equal(trainer.generate([short, long], 2, temperature=0.0), alone)
    padded, mask = torch.stack((F.pad(short, (3, 0)), long)), torch.tensor([[False] * 3 + [True] * 3, [True] * 6])
    assert torch.equal(trainer.generate(padded, 2, mask=mask, temperature=0.0), alone)
    if alike:
        right = torch.stack((F.pad(short, (0, 3)), long))
        assert torch.equal(trainer.generate(right, 2, prompt_lens=torch.tensor([3, 6]), temperature=0.0), alone)


@row("loss of padded targets")
def loss(package: Any, alike: bool) -> None:
    trainer = package.AutoregressiveWrapper(model_of(package))
    mask = torch.arange(6) < torch.tensor([[4], [6]])
    assert torch.equal(trainer(TOKENS, mask=mask), trainer(TOKENS.masked_fill(~mask, -100), mask=mask))


@row("several results")
def results(package: Any, alike: bool) -> None:
    out = model_of(package, max_mem_len=4)(TOKENS, return_intermediates=True, return_mems=True, return_attn=True)
    assert len(out) == (2 if alike else 4)
    assert len(out[1].mems) == 1


@row("memories")
def memories(package: Any, alike: bool) -> None:
    net = model_of(package, max_mem_len=4)
    _, mems = net(TOKENS, return_mems=True)
    assert isinstance(mems, Memories)
    assert torch.equal(net(TOKENS, mems=[mem.clone() for mem in mems]), net(TOKENS, mems=mems))


@row("intermediates")
def intermediates(package: Any, alike: bool) -> None:
    _, seen = model_of(package)(TOKENS, return_intermediates=True)
    assert [*seen.streams] == ["a0", "f1"]
    assert [len(t) for t in (seen.hiddens, seen.layer_hiddens, seen.attn_intermediates)] == [1, 3, 1]


@row("steps by hand")
def steps(package: Any, alike: bool) -> None:
    net = model_of(package)
    _, seen = net(TOKENS[:, :5], return_intermediates=True)
    cache = net.new_cache(2)
    net(TOKENS[:, :5], cache=cache)
    for step in (net(TOKENS, cache=seen), net(TOKENS[:, 5:], cache=cache)):
        torch.testing.assert_close(step, net(TOKENS)[:, 5:])


@row("position biases")
def biases(package: Any, alike: bool) -> None:
    stack = package.Decoder(**SIZES, alibi_pos_bias=True, rel_pos_bias=True, dynamic_pos_bias=True)
    assert len(stack.positions) == 3


@row("`layer_dropout`")
def dropped(package: Any, alike: bool) -> None:
    torch.manual_seed(0)
    stack, x = package.Decoder(**SIZES, layer_dropout=0.5).train(), torch.randn(1, 2, 16).expand(64, -1, -1)
    assert len(stack(x).detach().flatten(1).unique(dim=0)) == 4  # each of two blocks dropped or not, by row


@row("a `condition` in decoding")
def condition(package: Any, alike: bool) -> None:
    net, given = model_of(package, {"use_adaptive_rmsnorm": True, "dim_condition": 3}), torch.randn(2, 3)
    cache = net.new_cache(2)
    net(TOKENS[:, :5], cache=cache, condition=given)
    torch.testing.assert_close(net(TOKENS[:, 5:], cache=cache), net(TOKENS, condition=given)[:, 5:])


@row("`tie_embedding`")
def tied(package: Any, alike: bool) -> None:
    net = model_of(package, tie_embedding=True)
    expected = net(TOKENS, return_embeddings=True) @ net.token_emb.weight.T / 16**0.5
    torch.testing.assert_close(net(TOKENS), expected)


@row("`Attention` of a `context`")
def context(package: Any, alike: bool) -> None:
    layer, x, other = package.Attention(dim=16, heads=2), torch.randn(1, 3, 16), torch.randn(1, 4, 16)
    if alike:
        torch.testing.assert_close(layer(x, context=x), layer(x))
        assert layer(x, context=other).shape == x.shape
    else:
        with pytest.raises(TypeError, match="context"):
            layer(x, context=other)
        assert xt_blocks.CrossAttention(dim=16, heads=2)(x, other).shape == x.shape


def test_each_row_has_its_check() -> None:
    rows = re.findall(r"^\| ([^|]+?) \|", section("At a glance"), re.MULTILINE)
    assert [title for title in rows if title != "---"] == [*CHECKS]


@pytest.mark.parametrize("package", [xt_blocks, xt_blocks.x_transformers], ids=lambda package: package.__name__)
@pytest.mark.parametrize("title", CHECKS)
def test_what_the_table_says(title: str, package: Any) -> None:
    CHECKS[title](package, package is not xt_blocks)


# The lists -------------------------------------------------------------------------------------------------------------


def absent() -> dict[str, set[str]]:
    """What the last table has, by row: the arguments that are not here."""
    rows = re.findall(r"^\| (.*?) \| (`.*`) \|$", section("What is not there"), re.MULTILINE)
    return {title.strip("`"): {*re.findall(r"`(\w+)`", names)} for title, names in rows}


def said_otherwise() -> set[str]:
    """Arguments that the table of orders spells in another way."""
    cells = re.findall(r"^\| (`.*?) \|", section("Order of the blocks"), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"\b([a-z]\w+)\b", cell)} - HERE


def test_what_is_not_there_is_refused() -> None:
    rows = absent()
    assert len(rows) == 6
    of_model = rows.pop("TransformerWrapper")
    for name in set.union(*rows.values()):
        with pytest.raises(TypeError, match=rf"Decoder\(\) got an unknown argument '{name}'"):
            Decoder(dim=8, depth=1, heads=2, **{name: 1})
    for name in of_model:
        with pytest.raises(TypeError, match=rf"TransformerWrapper\(\) got an unknown argument '{name}'"):
            TransformerWrapper(num_tokens=8, max_seq_len=8, attn_layers=Decoder(dim=8, depth=1, heads=2), **{name: 1})


def test_the_list_is_whole() -> None:
    """Beside the release that the page is about."""
    pytest.importorskip("x_transformers")
    if not version("x-transformers").startswith("2.31."):
        pytest.skip("another release than the page's")
    from x_transformers import TransformerWrapper as Theirs
    from x_transformers.x_transformers import Attention, AttentionLayers, FeedForward

    def arguments(cls: type, prefix: str = "", without: tuple[str, ...] = ()) -> set[str]:
        own = {*inspect.signature(cls.__init__).parameters} - {"self", "kwargs", *without}
        return {prefix + name for name in own}

    theirs = (
        arguments(AttentionLayers)
        | arguments(Attention, "attn_", ("dim", "heads", "causal"))
        | arguments(FeedForward, "ff_", ("dim",))
        | arguments(Theirs)
    )
    assert theirs - HERE - said_otherwise() == set.union(*absent().values())
