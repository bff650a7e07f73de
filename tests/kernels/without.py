"""Run a model with each of torch's private names taken away in turn; a line of JSON for each.

    python tests/kernels/without.py

torch is imported once, and the language, which has nothing of it; each run is a process forked from there, which takes
the name away, imports xt_blocks, puts the name back (torch itself lives on it) and runs.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch._dynamo
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.optim import optimizer

import blockdsl


@contextmanager
def no_attribute(owner: Any, name: str) -> Iterator[None]:
    """Without it, if it is there at all."""
    there = vars(owner).get(name)
    if there is not None:
        delattr(owner, name)
    yield
    if there is not None:
        setattr(owner, name, there)


@contextmanager
def no_instance_attribute(of: type, name: str) -> Iterator[None]:
    """Instances raise AttributeError for it, though they have it."""

    def refuse(_: Any) -> None:
        raise AttributeError(name)

    setattr(of, name, property(refuse, lambda self, value: vars(self).update({name: value})))
    yield
    delattr(of, name)


@contextmanager
def no_operator(name: str) -> Iterator[None]:
    namespace = torch.ops.mkldnn
    own, found = type(namespace), type(namespace).__getattr__

    def without(self: Any, wanted: str) -> Any:
        if self is namespace and wanted == name:
            raise AttributeError(name)
        return found(self, wanted)

    vars(namespace).pop(name, None)
    own.__getattr__ = without
    yield
    own.__getattr__ = found


@contextmanager
def no_module(name: str) -> Iterator[None]:
    sys.modules[name] = None  # type: ignore[assignment]  # its import raises ImportError, now and later
    yield


HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
HIDDEN: dict[str, Callable[[], Any]] = {
    **{
        f"_C.{name}": partial(no_attribute, torch._C, name)
        for name in (
            "_is_tracing",
            "_get_mkldnn_enabled",
            "_len_torch_dispatch_stack",
            "_is_torch_function_mode_enabled",
            "_are_functorch_transforms_active",
        )
    },
    "_current_level": partial(no_attribute, forward_ad, "_current_level"),
    **{name: partial(no_instance_attribute, nn.Module, name) for name in (*HOOKS, "_parameters")},
    **{"_global" + name: partial(no_attribute, nn.modules.module, "_global" + name) for name in HOOKS},
    "_version": partial(no_instance_attribute, Tensor, "_version"),
    "register_optimizer_step_post_hook": partial(no_attribute, optimizer, "register_optimizer_step_post_hook"),
    "ops.mkldnn._linear_pointwise.default._op": partial(no_operator, "_linear_pointwise"),
    **{
        f"ops.mkldnn.{name}": partial(no_operator, name)
        for name in ("_reorder_linear_weight", "_is_mkldnn_bf16_supported", "_is_mkldnn_fp16_supported")
    },
    "nn.attention.flex_attention": partial(no_module, "torch.nn.attention.flex_attention"),
    **{
        f"distributed.{name}": partial(no_attribute, torch.distributed, name)
        for name in ("all_gather_single", "reduce_scatter_single")
    },
    "_dynamo.mark_static_address": partial(no_attribute, torch._dynamo, "mark_static_address"),
}
"""How each name is taken away, by the name that compat looks up."""


def run(without: str) -> dict[str, Any]:
    """The line of one run."""
    with HIDDEN[without]() if without else nullcontext():
        import xt_blocks
        from xt_blocks.kernels import compat

        compat.mark_static_address(torch.zeros(1))  # these two are looked up when they are wanted
        compat.flex_attention()
    torch.manual_seed(0)
    decoder = xt_blocks.Decoder(dim=32, depth=1, heads=2, attn_dim_head=16, alibi_pos_bias=True)
    net = xt_blocks.TransformerWrapper(num_tokens=2048, max_seq_len=1024, attn_layers=decoder)
    model = xt_blocks.AutoregressiveWrapper(net)
    tokens = torch.randint(2048, (2, 1024))

    loss = model(tokens)
    loss.backward()
    gradient = net.token_emb.weight.grad[:8]
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    with torch.no_grad():
        logits = net(tokens)[0, -1]
        xt_blocks.pack(net)
        packed = net(tokens)[0, -1]
    generated = model.generate(tokens[:, :5], 8, temperature=0.0)
    net.train()(tokens).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()  # after it, a packed copy is out of date
    with torch.no_grad():
        trained = net(tokens)[0, -1]
    tensors = {"loss": loss, "gradient": gradient, "logits": logits, "packed": packed, "trained": trained}
    return {
        "looked_up": compat.LOOKED_UP,
        "tokens": generated.tolist(),
        **{name: t.tolist() for name, t in tensors.items()},
    }


def main() -> None:
    torch.set_num_threads(1)
    blockdsl.compile("a f", dim=8, num_tokens=8, max_seq_len=8)
    assert "xt_blocks" not in sys.modules
    for name in ("", *HIDDEN):
        sys.stdout.flush()
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            continue
        try:
            line = run(name)
        except Exception:
            line = {"error": traceback.format_exc()}
        print(json.dumps({"without": name, **line}), flush=True)
        os._exit(0)


if __name__ == "__main__":
    main()
