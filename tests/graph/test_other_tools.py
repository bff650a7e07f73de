"""Profilers and viewers by others see our layers, and their counts are ours or differ as docs/graphs.md says.

torch alone has what they stand on: forward hooks, the graph of gradients, operators as they are dispatched. Those of the
tools that are installed are run too.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import blockdsl
import xt_blocks

SEQ = 12
MODELS = {
    "tokens": ("(a f)*2", {"causal": True, "num_tokens": 32, "max_seq_len": 16}),
    "rotary": ("(a f(glu))*2", {"causal": True, "num_tokens": 32, "max_seq_len": 16, "rotary_pos_emb": True}),
    "images": ("(a f)*2", {"image_size": 32, "patch_size": 8, "num_classes": 10}),
    "a stack": ("(a & f)*2 a", {}),
}


def made(name: str) -> tuple[blockdsl.BlockGraph, nn.Module, Tensor]:
    pattern, settings = MODELS[name]
    graph = blockdsl.compile(pattern, dim=32, heads=2, attn_flash=False, **settings)
    inputs = {"images": torch.randn(1, 3, 32, 32), "a stack": torch.randn(1, SEQ, 32)}
    return graph, xt_blocks.lower(graph).eval(), inputs.get(name, torch.arange(SEQ)[None])


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_called_as_a_module(name: str) -> None:
    """torchinfo, torchview, ptflops and thop count by forward hooks."""
    _, model, x = made(name)
    called: set[nn.Module] = set()
    for module in model.modules():
        module.register_forward_hook(lambda module, args, out: called.add(module))
    model(x)
    own = [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None]
    assert len(own) > 8
    assert called >= {*own}


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_of_gradients_has_every_parameter(name: str) -> None:
    """torchviz draws it."""
    _, model, x = made(name)
    nodes, leaves = [model(x).grad_fn], set()
    for node in nodes:
        leaves |= {node.variable} if hasattr(node, "variable") else set()
        nodes += [after for after, _ in node.next_functions if after is not None and after not in nodes]
    assert leaves == {*model.parameters()}


@pytest.mark.parametrize("name", MODELS)
def test_the_counter_of_torch_counts_what_we_do(name: str) -> None:
    graph, model, x = made(name)
    with FlopCounterMode(display=False) as counter:
        model(x)
    assert counter.get_total_flops() == graph.flops(SEQ)
    assert sum(parameter.numel() for parameter in model.parameters()) == graph.parameters()


# Each of these returns the parameters that the tool finds, and the multiply-adds of matrices where it can tell them.


def torchinfo(model: nn.Module, x: Tensor) -> tuple[int, None]:
    found = sys.modules["torchinfo"].summary(model, input_data=x, verbose=0, depth=9)
    assert {"Attention", "FeedForward", "Block"} <= {layer.class_name for layer in found.summary_list}
    return found.total_params, None  # of a linear layer it counts one token


def torchview(model: nn.Module, x: Tensor) -> tuple[None, None]:
    drawn = str(sys.modules["torchview"].draw_graph(model, input_data=x, depth=9).visual_graph)
    assert all(name in drawn for name in ("Linear", "LayerNorm", "softmax"))
    return None, None


def torchviz(model: nn.Module, x: Tensor) -> tuple[int, None]:
    drawn = sys.modules["torchviz"].make_dot(model(x), params=dict(model.named_parameters())).source
    return sum(p.numel() for name, p in model.named_parameters() if f"{name}\n" in drawn), None


def ptflops(model: nn.Module, x: Tensor) -> tuple[int, None]:
    given = {"x" if x.is_floating_point() else "tokens": x}
    count = sys.modules["ptflops"].get_model_complexity_info
    _, parameters = count(
        model, (1,), input_constructor=lambda _: given, as_strings=False, print_per_layer_stat=False, backend="aten"
    )
    return parameters, None


def fvcore(model: nn.Module, x: Tensor) -> tuple[int, int]:
    from fvcore.nn import FlopCountAnalysis, parameter_count  # type: ignore[import-not-found]

    found = FlopCountAnalysis(model, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    return parameter_count(model)[""], found["linear"] + found["matmul"]


TOOLS: list[Any] = [torchinfo, torchview, torchviz, ptflops, fvcore]


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if find_spec(tool.__name__)], ids=lambda tool: tool.__name__)
@pytest.mark.parametrize("name", MODELS)
def test_the_tools_that_are_installed_agree(tool: Any, name: str) -> None:
    __import__(tool.__name__)
    graph, model, x = made(name)
    parameters, products = tool(model, x)
    assert parameters in (None, graph.parameters())
    assert products in (None, graph.flops(SEQ) // 2)
