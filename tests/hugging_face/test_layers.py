"""The keys that say what each layer is, by whichever name a release or a family has for it."""

from __future__ import annotations

from typing import Any

import pytest

from blockdsl import parse
from blockdsl.errors import UserError
from blockdsl.hugging_face.config import Config
from blockdsl.hugging_face.layers import (
    each_last,
    expert_layers,
    layer_types,
    lettered,
    listed,
    named,
    periodic,
    repeated,
)

FULL, LINEAR = "full_attention", "linear_attention"
KNOWN = (FULL, LINEAR)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [LINEAR] * 4),
        ({"layer_types": [FULL, LINEAR, LINEAR, FULL]}, [FULL, LINEAR, LINEAR, FULL]),
        ({"layers_block_type": ["attention", "mamba", "mamba", "attention"]}, [FULL, LINEAR, LINEAR, FULL]),
        ({"layer_types": ["recurrent", "recurrent", "attention", "recurrent"]}, [LINEAR, LINEAR, FULL, LINEAR]),
        ({"layer_types": ["mamba"] * 4, "layers_block_type": [LINEAR] * 4}, [LINEAR] * 4),
    ],
)
def test_the_types_of_layers_by_the_names_of_today(keys: dict[str, Any], expected: list[str]) -> None:
    config = Config(keys)
    assert [*layer_types(config, [LINEAR] * 4, KNOWN)] == expected
    config.check_all_read()


def test_the_older_keys() -> None:
    """Jamba's periods, Qwen3-Next's interval, Bamba's list, Kimi's (whose first layer is 1), Nemotron-H's letters."""
    config = Config(
        {
            "attn_layer_period": 4,
            "attn_layer_offset": 2,
            "full_attention_interval": 3,
            "attn_layer_indices": [0, 5],
            "linear_attn_config": {"full_attn_layers": [1, 6]},
            "hybrid_override_pattern": "M-*E",
        }
    )
    yes = lambda found: [i for i, each in enumerate(found) if each]  # noqa: E731
    assert yes(periodic(config, 8, "attn_layer", 8, 4)) == [2, 6]
    assert yes(periodic(config, 8, "expert_layer", 2, 1)) == [1, 3, 5, 7]
    assert yes(each_last(config, 8, "full_attention_interval", 4)) == [2, 5]
    assert yes(listed(config, 8, "attn_layer_indices")) == [0, 5]
    assert yes(listed(config.nested("linear_attn_config"), 8, "full_attn_layers", start=1)) == [0, 5]
    assert lettered(config) == (LINEAR, "mlp", FULL, "moe")
    assert named("yes", "no", [True, False]) == ("yes", "no")
    config.check_all_read()


def test_layers_with_experts() -> None:
    assert expert_layers(Config({}), [False, True]) == (False, True)
    assert expert_layers(Config({"mlp_layer_types": ["dense", "sparse"]}), [True, True]) == (False, True)


def _read_all(config: Config) -> None:
    periodic(config, 2, "attn_layer", 8, 4)
    layer_types(config, [LINEAR] * 2, KNOWN)
    expert_layers(config, [False] * 2)
    listed(config, 2, "indices")
    lettered(config)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"layer_types": ["conv", FULL]},
            "layer_types=['conv', 'full_attention']: it is not one of full_attention and linear_attention for each "
            "layer, for which there is no option here",
        ),
        ({"layers_block_type": ["mamba"]}, "layers_block_type=['mamba']: it is not one of"),
        (
            {"layer_types": ["mamba"] * 2, "layers_block_type": ["attention"] * 2},
            "layers_block_type=['full_attention', 'full_attention']: it is not what layer_types says",
        ),
        ({"mlp_layer_types": ["dense", "odd"]}, "mlp_layer_types=['dense', 'odd']: it is not one of dense and sparse"),
        ({"indices": [2]}, "indices=[2]: layer 2 is none of 0 to 1"),
        ({"hybrid_override_pattern": "MX"}, "hybrid_override_pattern='MX': 'X' is none of M * - E"),
        ({"layer_types": 5}, "layer_types must be a list, not 5"),
        ({"attn_layer_period": 0}, "attn_layer_period must be a whole number of at least 1, not 0"),
    ],
)
def test_what_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        _read_all(Config(keys))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["a f"] * 3, "(a f)*3"),
        (["a"] * 3 + ["f"], "a*3 f"),
        (["a(max_attend_past=4)"] * 2, "a(max_attend_past=4)*2"),
        (["a f", "a f", "c f"] * 2, "((a f)*2 c f)*2"),
    ],
)
def test_layers_as_canonical_text(layers: list[str], expected: str) -> None:
    assert repeated(layers) == expected == str(parse(expected))
