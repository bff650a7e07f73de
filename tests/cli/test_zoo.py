"""Published models by name: zoo:gpt2."""

from __future__ import annotations

from collections.abc import Callable

from .conftest import Ran

Blockdsl = Callable[..., Ran]


def test_on_the_command_line(blockdsl: Blockdsl) -> None:
    assert blockdsl("check", "zoo:llama3-70b") == (0, "ok: 160 blocks in 1 stage\n", "")
    assert blockdsl("fmt", "zoo:llama3-8b")[1].endswith("logits_bias=false;\n(a f)*32\n")
    assert "8,030,261,248" in blockdsl("stats", "zoo:llama3")[1]
    status, out, _ = blockdsl("diff", "zoo:llama2-7b", "zoo:llama3-8b")
    assert status == 1
    assert "kv_heads 32 -> 8" in out
    assert blockdsl("diff", "zoo:gpt2", "zoo:gpt2-small")[0] == 0
    assert "dim 64" in blockdsl("show", "zoo:gpt2", "--dim", "64")[1]
    status, _, err = blockdsl("show", "zoo:gtp2")
    assert (status, err) == (1, "blockdsl show: the zoo has no 'gtp2'; did you mean 'gpt2'?\n")


def test_two_streams(blockdsl: Blockdsl) -> None:
    out = blockdsl("show", "zoo:whisper")[1]
    assert out.index("encoder") < out.index("decoder")
    assert blockdsl("diff", "zoo:t5", "zoo:t5-small")[0] == 0
    assert "dim 64" in blockdsl("show", "zoo:t5", "--dim", "64")[1]
    assert "60,506,624" in blockdsl("stats", "zoo:t5")[1]
