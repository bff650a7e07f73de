"""An entry of the zoo and the published configuration of the same model are the same graph."""

from __future__ import annotations

import pytest

from blockdsl import zoo
from blockdsl.hugging_face import read

from .test_published import PUBLISHED, SHARED

SAME = {
    "llama2-7b": "meta-llama/Llama-2-7b-hf",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "smollm3-3b": "HuggingFaceTB/SmolLM3-3B",
}


@pytest.mark.parametrize("name", SAME)
def test_are_the_same_graph(name: str) -> None:
    found = zoo.entry(name).graph().diff(read(SHARED | PUBLISHED[SAME[name]][2]).graphs()[""])
    assert not found, found.to_text()


def test_what_a_later_model_changed() -> None:
    later = read(SHARED | PUBLISHED["meta-llama/Llama-3.1-8B"][2]).graphs()[""]
    changed = zoo.entry("llama3-8b").graph().diff(later).to_text()
    assert "max_seq_len 8192 -> 131072" in changed
    assert "scaling none -> llama3" in changed
    assert "blocks" not in changed.splitlines()
