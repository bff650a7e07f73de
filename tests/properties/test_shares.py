"""The shares of ranks give what any whole model gives, and its gradients; caches have the bytes that their graph says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from blockdsl.plan.local import tensor_part, tensor_splits
from blockdsl.registry.split import Split

from ..distributed.split_models import compare, run_pass, share
from ..distributed.threads import of_threads
from .models import SIZES, Model, close, context_for, examples, models


@examples(17)
@given(model=models(around=False), ranks=st.sampled_from([2, 3]))
def test_shares_are_the_whole(model: Model, ranks: int) -> None:
    graph = model.graph
    assume(any(isinstance(split, Split) for split in tensor_splits(graph, ranks).values()))
    whole = model.stack()
    torch.manual_seed(model.seed)
    inputs = {"x": torch.randn(2, 7, SIZES["dim"], dtype=torch.float64), **context_for(whole, 2)}
    if model.seed % 2:
        inputs["mask"] = torch.arange(7) < torch.tensor([[7], [4]])
    expected = run_pass(whole, inputs)

    def held(group: Any) -> None:
        compare(graph, whole, inputs, group, expected, tolerance=1e-6)
        own, local = share(whole, graph, group), tensor_part(graph, ranks)
        assert sum(p.numel() for p in own.parameters()) == local.parameters()
        if graph.why_not_cached() is not None or "mask" in inputs:
            return
        cache, parts = own.new_cache(2, 7), inputs["x"].split([4, 1, 1, 1], dim=1)
        with torch.no_grad():
            steps = [own(**(inputs | {"x": parts[0]}), cache=cache), *(own(x, cache=cache) for x in parts[1:])]
        if not whole.changes_with_length:
            close(torch.cat(steps, dim=1), expected.out, 1e-6)
        assert cache.bytes() == local.kv_cache_bytes(7, 2, "float64", context_len=5)

    with pytest.MonkeyPatch.context() as patch:
        of_threads(patch, ranks, held)
