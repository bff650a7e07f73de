"""What rotary positions can be told: frequencies and rotations against formulas written out, steps against passes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import blockdsl
import xt_blocks
from blockdsl import PatternError, UserError
from xt_blocks.generation.prompts import read_prompts
from xt_blocks.generation.steps import WindowDecoding
from xt_blocks.positions import Rotary
from xt_blocks.runtime.intermediates import Intermediates

SHORT, LONG = (1.0, 1.25, 1.5, 2.0), (1.5, 3.0, 4.5, 8.0)

SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rotary_factor": 2.5},
    "dynamic": {"rotary_factor": 3, "rotary_original_len": 6},
    "llama3": {"rotary_factor": 8, "rotary_original_len": 40, "rotary_low_freq_factor": 1.5},
    "yarn": {"rotary_factor": 4, "rotary_original_len": 32, "rotary_beta_fast": 6},
    "longrope": {
        "rotary_original_len": 6,
        "rotary_factor": 4,
        "rotary_short_factors": SHORT,
        "rotary_long_factors": LONG,
    },
}
BY_LENGTH = ("dynamic", "longrope")
SIZES: dict[str, Any] = {"dim": 16, "heads": 2, "attn_dim_head": 10, "causal": True}
ROTARY: dict[str, Any] = {"rotary_pos_emb": True, "rotary_emb_dim": 8, "rotary_theta": 300}


def by_hand(scaling: str | None, length: int) -> tuple[list[float], float]:
    """The angle of a step of each of four pairs, as the papers have it, and the factor of what is rotated."""
    said = {name.removeprefix("rotary_"): value for name, value in SCALINGS.get(scaling or "", {}).items()}
    theta, dim = 300.0, 8
    plain = [theta ** (-2 * i / dim) for i in range(4)]
    if scaling is None:
        return plain, 1.0
    factor, original = said["factor"], said.get("original_len", 0)
    if scaling == "linear":
        return [each / factor for each in plain], 1.0
    if scaling == "dynamic":
        stretched = theta
        if length > original:
            stretched *= (factor * length / original - factor + 1) ** (dim / (dim - 2))
        return [stretched ** (-2 * i / dim) for i in range(4)], 1.0
    if scaling == "llama3":
        out = []
        for each in plain:
            wavelength = 2 * math.pi / each
            if wavelength < original / 4:  # the default of high_freq_factor
                out.append(each)
            elif wavelength > original / said["low_freq_factor"]:
                out.append(each / factor)
            else:
                smooth = (original / wavelength - said["low_freq_factor"]) / (4 - said["low_freq_factor"])
                out.append((1 - smooth) * each / factor + smooth * each)
        return out, 1.0
    if scaling == "yarn":
        low, high = (
            dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta)) for turns in (said["beta_fast"], 1)
        )
        low, high = max(math.floor(low), 0), min(math.ceil(high), dim - 1)
        ramp = [min(max((i - low) / (high - low), 0), 1) for i in range(4)]
        return [r * each / factor + (1 - r) * each for r, each in zip(ramp, plain, strict=True)], 0.1 * math.log(4) + 1
    factors = LONG if length > original else SHORT
    gain = math.sqrt(1 + math.log(factor) / math.log(original))
    return [each / own for each, own in zip(plain, factors, strict=True)], gain


def written_out(layer: Any, x: Tensor, scaling: str | None, interleaved: bool, length: int | None = None) -> Tensor:
    """Causal self-attention with rotated queries and keys, each number of a pair by itself, in float64."""
    seq = x.shape[1]
    angles, gain = by_hand(scaling, length or seq)
    q, k, v = (part.unflatten(-1, (2, 10)) for part in (x @ layer.to_qkv.weight.T).chunk(3, dim=-1))
    q, k = q.clone(), k.clone()
    for part in (q, k):
        for t in range(seq):
            for i, angle in enumerate(angles):
                first, second = (2 * i, 2 * i + 1) if interleaved else (i, i + 4)
                a, b = part[:, t, :, first].clone(), part[:, t, :, second].clone()
                cos, sin = gain * math.cos(t * angle), gain * math.sin(t * angle)
                part[:, t, :, first], part[:, t, :, second] = a * cos - b * sin, b * cos + a * sin
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * 10**-0.5
    scores = scores.masked_fill(~torch.ones(seq, seq, dtype=torch.bool).tril(), -math.inf)
    mixed = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).flatten(2)
    return mixed @ layer.output.to_out.weight.T


def stack_of(pattern: str = "a", **settings: Any) -> Any:
    torch.manual_seed(3)
    return xt_blocks.lower(blockdsl.compile(pattern, **(SIZES | settings))).double().eval()


def said_of(scaling: str | None) -> dict[str, Any]:
    return {} if scaling is None else {"rotary_scaling": scaling, **SCALINGS[scaling]}


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("seq", [5, 13])
@pytest.mark.parametrize("scaling", [None, *SCALINGS])
def test_a_stack_rotates_as_the_formulas_do(scaling: str | None, seq: int, interleaved: bool) -> None:
    stack = stack_of(**ROTARY, **said_of(scaling), rotary_interleaved=interleaved)
    x = torch.randn(2, seq, 16, dtype=torch.float64)
    (block,) = stack.blocks.values()
    expected = x + written_out(block.layer, block.norm(x), scaling, interleaved)
    torch.testing.assert_close(stack(x), stack.norm(expected), rtol=1e-5, atol=1e-5)  # angles are float32


@pytest.mark.parametrize("scaling", [None, *SCALINGS])
def test_frequencies_are_those_of_the_formulas(scaling: str | None) -> None:
    said = {name.removeprefix("rotary_"): value for name, value in said_of(scaling).items()}
    rotary = Rotary(8, 300.0, **said)
    for length in (1, 6, 7, 50):
        torch.testing.assert_close(
            rotary.frequencies(length), torch.tensor(by_hand(scaling, length)[0], dtype=torch.float64)
        )


def test_limits_of_yarn_between_pairs() -> None:
    rotary = Rotary(8, 300.0, scaling="yarn", factor=4, original_len=32, beta_fast=6, truncate=False)
    fast, slow = (8 * math.log(32 / (turns * 2 * math.pi)) / (2 * math.log(300)) for turns in (6, 1))
    ramp = [min(max((i - max(fast, 0)) / (slow - max(fast, 0)), 0), 1) for i in range(4)]
    by_pair = [300 ** (-i / 4) * (share / 4 + 1 - share) for i, share in enumerate(ramp)]
    torch.testing.assert_close(rotary.frequencies(32), torch.tensor(by_pair, dtype=torch.float64))


def test_the_attention_factor_can_be_given() -> None:
    x = torch.randn(1, 5, 16, dtype=torch.float64)
    own, given = (
        stack_of(**ROTARY, **said_of("yarn")),
        stack_of(**ROTARY, **said_of("yarn"), rotary_attention_factor=0.1 * math.log(4) + 1),
    )
    other = stack_of(**ROTARY, **said_of("yarn"), rotary_attention_factor=2)
    torch.testing.assert_close(own(x), given(x))
    assert not torch.allclose(own(x), other(x))


STATIC = [name for name in SCALINGS if name not in BY_LENGTH]
PATTERNS = ("(a f)*2", "(a f)*2 a(rotary=false)", "a(max_attend_past=3) a", "a>>1 a(num_mem_kv=2)")


@pytest.mark.parametrize(
    ("scaling", "pattern", "prompt"),
    [
        *((scaling, pattern, 4) for scaling in STATIC for pattern in PATTERNS),
        *(("longrope", pattern, 7) for pattern in PATTERNS),  # from where on its frequencies stay
        # values of earlier tokens are those of the input: keys are rotated anew at each length
        *(
            (scaling, pattern, 4)
            for scaling in BY_LENGTH
            for pattern in ("f a", "a(max_attend_past=3)", "a(num_mem_kv=2)")
        ),
    ],
)
def test_each_cached_step_is_the_end_of_a_whole_pass(scaling: str, pattern: str, prompt: int) -> None:
    stack = stack_of(pattern, **ROTARY, **said_of(scaling))
    x = torch.randn(2, 12, 16, dtype=torch.float64)
    cache = stack.new_cache(2, 12)
    stack(x[:, :prompt], cache=cache)
    for end in range(prompt + 1, 13):
        out = stack(x[:, end - 1 : end], cache=cache)
        torch.testing.assert_close(out, stack(x[:, :end])[:, -1:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scaling", BY_LENGTH)
def test_fixed_shapes_and_padding_see_each_rows_own_length(scaling: str) -> None:
    stack = stack_of("f a f", **ROTARY, **said_of(scaling))
    x = torch.randn(2, 12, 16, dtype=torch.float64)
    padding = 4  # of the second row: it has 8 tokens, the first one 12
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, :padding] = False
    cache = stack.new_cache(2, 12)
    stack(x[:, :5], mask=mask[:, :5], cache=cache)
    cache.fix_shapes()
    for end in range(6, 13):
        out = stack(x[:, end - 1 : end], cache=cache)
        whole = stack(x[:, :end], mask=mask[:, :end])[:, -1]
        torch.testing.assert_close(out[:, 0], whole, rtol=1e-5, atol=1e-5)
        for row, start in enumerate((0, padding)):
            alone = stack(x[row : row + 1, start:end])[:, -1]
            torch.testing.assert_close(whole[row : row + 1], alone, rtol=1e-5, atol=1e-5)
    right = stack(x, mask=mask.flip(1))
    torch.testing.assert_close(right[1:, :8], stack(x[1:, :8]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scaling", BY_LENGTH)
def test_positions_of_the_caller_say_the_length(scaling: str) -> None:
    stack = stack_of(**ROTARY, **said_of(scaling))
    x = torch.randn(1, 4, 16, dtype=torch.float64)
    (block,) = stack.blocks.values()
    far = stack.norm(x + written_out(block.layer, block.norm(x), scaling, False, length=11))
    torch.testing.assert_close(stack(x, pos=torch.arange(7, 11)), far, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(stack(x), far, rtol=1e-3)


@pytest.mark.parametrize("around", [{}, {"num_memory_tokens": 2}])
@pytest.mark.parametrize("scaling", BY_LENGTH)
def test_generation_with_and_without_a_cache_are_the_same(scaling: str, around: dict[str, int]) -> None:
    """Past the original length of 6, for rows that come to it at different steps."""
    torch.manual_seed(0)
    settings = {**SIZES, **ROTARY, **said_of(scaling), "num_tokens": 11, "max_seq_len": 24, **around}
    net: Any = xt_blocks.lower(blockdsl.compile("(a f)*2", **settings)).double().eval()
    for parameter in net.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    prompts = [torch.tensor([3, 1, 4]), torch.tensor([5])]
    drawn = {}
    for cached in (False, True):
        decoding = WindowDecoding(net, read_prompts(prompts), 12, cached, False, {})
        outputs = []
        for token in range(12):
            outputs.append(decoding.next_output())
            decoding.append(torch.tensor([token % 11, (3 * token) % 11]))
        drawn[cached] = torch.stack(outputs)
    torch.testing.assert_close(drawn[True], drawn[False], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"attn_num_mem_kv": 2}])
@pytest.mark.parametrize("scaling", [*SCALINGS])
def test_a_segment_after_its_memories_is_the_end_of_a_whole_text(scaling: str, settings: dict[str, int]) -> None:
    """Of one layer, whose memories are the input."""
    stack = stack_of("a", **ROTARY, **said_of(scaling), **settings)
    x = torch.randn(2, 11, 16, dtype=torch.float64)
    seen = Intermediates()
    stack(x[:, :4], intermediates=seen)
    mems = stack.remember(None, seen, None, max_mem_len=64)
    torch.testing.assert_close(stack(x[:, 4:], mems=mems), stack(x)[:, 4:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("said", [{"rotary_interleaved": True}, *map(said_of, SCALINGS)])
def test_packed_weights_and_single_tokens_are_the_same(said: dict[str, Any]) -> None:
    """Alone, a token is rotated by one matrix product in float32."""
    stack = stack_of(
        "(a f)*2", **ROTARY, **said | ({"rotary_original_len": 40} if "rotary_original_len" in said else {})
    )
    x = torch.randn(1, 9, 16)
    with torch.no_grad():
        whole = stack(x.double())
        packed, cache = xt_blocks.pack(stack.float()), stack.new_cache(1, 9)
        steps = torch.cat([packed(x[:, i : i + 1], cache=cache) for i in range(9)], dim=1)
    torch.testing.assert_close(steps.double(), whole, rtol=1e-4, atol=1e-4)


# Text and graph ----------------------------------------------------------------------------------------------------


def test_lists_are_written_and_read() -> None:
    text = "a(rotary, rotary_scaling=longrope, rotary_original_len=64, rotary_short_factors=(1, 1.5), rotary_long_factors=(2, 8.25))"
    pattern = blockdsl.parse(text.replace("(1, 1.5)", "(1.0,1.5)"))
    assert str(pattern) == text
    graph = blockdsl.compile(pattern, dim=16, heads=2, attn_dim_head=8)
    node = graph.nx.nodes["rotary4"]
    assert (node["short_factors"], node["long_factors"]) == ((1.0, 1.5), (2.0, 8.25))
    assert blockdsl.BlockGraph.from_json(graph.to_json()) == graph
    given = {"rotary_short_factors": [1, 1.5], "rotary_long_factors": torch.tensor([2.0, 8.25])}
    same = blockdsl.compile(
        "a",
        dim=16,
        heads=2,
        attn_dim_head=8,
        rotary_pos_emb=True,
        rotary_scaling="longrope",
        rotary_original_len=64,
        **given,
    )
    assert not graph.diff(same)
    alone = blockdsl.parse("set rotary_short_factors=(3); a").settings
    assert alone == {"rotary_short_factors": (3,)}


WRONG: list[tuple[str, str]] = [
    ("a(rotary, rotary_short_factors=3)", "rotary_short_factors must be a list, each a number above 0 or none, not 3"),
    ("a(rotary, rotary_short_factors=(1, 0))", "rotary_short_factors must be a number above 0, not 0"),
    ("a(rotary, rotary_short_factors=(1, true))", "rotary_short_factors must be a number above 0, not true"),
    ("a(rotary, rotary_factor=(1, 2))", "rotary_factor has a list of 2, and no repeat to go through it"),
    (
        "a(rotary, rotary_scaling=ntk)",
        "rotary_scaling must be one of 'linear', 'dynamic', 'llama3', 'yarn', 'longrope'",
    ),
    ("a(rotary, rotary_scaling=linear)", "rotary_scaling=linear needs rotary_factor"),
    ("a(rotary, rotary_factor=2)", "rotary_factor is set, but it needs rotary_scaling=linear"),
    (
        "a(rotary, rotary_scaling=linear, rotary_factor=2, rotary_original_len=9)",
        "rotary_original_len is set, but it needs rotary_scaling=dynamic",
    ),
    ("set rotary_factor=2; a(rotary)", "rotary_factor is set, but it needs rotary_scaling=linear"),
    (
        "a(rotary, rotary_scaling=longrope, rotary_original_len=9, rotary_short_factors=(1), rotary_long_factors=(2, 3))",
        "rotary_short_factors has 1 numbers, and 4 rotated features have 2 frequencies",
    ),
    (
        "a(rotary, rotary_emb_dim=2, rotary_scaling=dynamic, rotary_factor=2, rotary_original_len=9)",
        "rotary_scaling=dynamic changes all frequencies but the first, and 2 rotated features have one",
    ),
    (
        "a(rotary, rotary_scaling=llama3, rotary_factor=2, rotary_original_len=9, rotary_low_freq_factor=4)",
        "rotary_low_freq_factor=4 must be below 4, the high one",
    ),
    (
        "a(rotary, rotary_scaling=yarn, rotary_factor=2, rotary_original_len=9, rotary_beta_slow=40)",
        "rotary_beta_slow=40 must be below 32, the fast one",
    ),
]


@pytest.mark.parametrize(("text", "problem"), WRONG)
def test_what_cannot_be_is_told(text: str, problem: str) -> None:
    with pytest.raises(PatternError) as caught:
        blockdsl.compile(text, dim=16, heads=2, attn_dim_head=8)
    assert problem in str(caught.value)


def test_a_block_takes_back_the_stacks_scaling() -> None:
    graph = blockdsl.compile(
        "a a(rotary_scaling=none)", dim=16, heads=2, attn_dim_head=8, rotary_pos_emb=True, **said_of("linear")
    )
    read = [graph.nx.nodes[graph.sources(node, "position")[0]] for node in graph.nodes("block")]
    assert [(node["scaling"], node["factor"]) for node in read] == [("linear", 2.5), (None, None)]
    assert "rotary 4, linear × 2.5" in graph.to_text()
    slower = blockdsl.compile("a(rotary, rotary_theta=1e6, rotary_interleaved)", dim=16, heads=2, attn_dim_head=8)
    assert "rotary 4, interleaved, theta 1,000,000" in slower.to_text()


def test_an_edited_node_is_held_to_its_scaling() -> None:
    graph = blockdsl.compile("a", dim=16, heads=2, attn_dim_head=8, rotary_pos_emb=True)
    graph.nx.nodes["rotary4"]["factor"] = 2.0
    with pytest.raises(UserError, match="rotary4 → a0: rotary_factor is set, but it needs rotary_scaling=linear"):
        graph.lint()
    graph.nx.nodes["rotary4"]["scaling"] = "linear"
    assert not graph.diff(
        blockdsl.compile(
            "a", dim=16, heads=2, attn_dim_head=8, rotary_pos_emb=True, rotary_scaling="linear", rotary_factor=2
        )
    )
