"""One block of Mamba-1, in training and without gradients, beside transformers' slow path and mambapy's parallel scan.

The three have the same weights and give the same. Each round runs all of them, one after another, at each length.

Run: python -m tests.benchmarks.selective_scan [--dim 256] [--lengths 512 2048] [--runs 5] [--threads 1]
(with transformers and mambapy installed; one that is not is left out)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from xt_blocks.blocks.mamba import Mamba

THEIRS = {"to_in": "in_proj", "conv": "conv1d", "to_scan": "x_proj", "to_dt": "dt_proj", "to_out": "out_proj"}


def ours(dim: int) -> Mamba:
    torch.manual_seed(0)
    return Mamba(dim)


def transformers_(dim: int) -> nn.Module:
    """Its operations without kernels; without a cache, which training has none of."""
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    return MambaMixer(MambaConfig(hidden_size=dim, num_hidden_layers=1, use_mambapy=False), layer_idx=0)


def mambapy(dim: int) -> nn.Module:
    from mambapy.mamba import MambaBlock, MambaConfig

    return MambaBlock(MambaConfig(d_model=dim, n_layers=1))


def with_our_weights(module: nn.Module, own: Mamba) -> nn.Module:
    named = {}
    for name, tensor in own.state_dict().items():
        first, _, rest = name.partition(".")
        named[f"{THEIRS.get(first, first)}.{rest}".rstrip(".")] = tensor
    module.load_state_dict(named)
    return module


def timed(run: Callable[..., object], *args: object) -> float:
    start = time.perf_counter()
    run(*args)
    return time.perf_counter() - start


def train(module: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = module(x)
    out.square().mean().backward()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    modules: dict[str, nn.Module] = {"ours": (own := ours(given.dim))}
    for name, make in (("transformers", transformers_), ("mambapy", mambapy)):
        try:
            modules[name] = with_our_weights(make(given.dim), own)
        except ImportError:
            print(f"{name} is not installed")
    print(f"{'dim':>5} {'tokens':>7} {'':>9} " + " ".join(f"{name:>14}" for name in modules))
    for length in given.lengths:
        x = torch.randn(1, length, given.dim, requires_grad=True)
        for what in "forward", "train":
            spent: dict[str, list[float]] = {name: [] for name in modules}
            with torch.set_grad_enabled(what == "train"):
                outs = [module(x).detach() for module in modules.values()]  # also warms up
                assert all(torch.allclose(out, outs[0], atol=1e-4) for out in outs), "they do not agree"
                for _ in range(given.runs):
                    for name, module in modules.items():
                        run = train if what == "train" else nn.Module.__call__
                        spent[name].append(timed(run, module, x))
            middle = {name: median(times) for name, times in spent.items()}
            cells = (f"{t * 1e3:7.1f} ms {t / middle['ours']:3.1f}x" for t in middle.values())
            print(f"{given.dim:5} {length:7,} {what:>9} " + " ".join(f"{cell:>14}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
