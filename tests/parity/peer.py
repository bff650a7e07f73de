"""Reading the parity cases: how to rebuild the peer's model with ours, and fill it with the peer's weights.

A case holds no weights: each tensor of the peer's state dict is filled from its own name.
"""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import xt_blocks
from xt_blocks.interop import load_x_transformers

FOLDER = Path(__file__).parent / "data"
BASE = {"dim": 32, "depth": 2, "heads": 2, "attn_dim_head": 16}


def cases(release: str) -> list[dict[str, Any]]:
    """Those of a release, and further ones where two options meet in what a loader has to know."""
    paths = (
        FOLDER / f"x_transformers_{release}{kind}.json" for kind in ("", "_combined", "_loading", "_wiring", "_pooling")
    )
    return [case for path in paths if path.exists() for case in json.loads(path.read_text())]


def tensor(spec: Any) -> Any:
    if not isinstance(spec, dict):
        return spec
    rng = np.random.RandomState(spec["seed"])
    shape = spec["shape"]
    if spec["kind"] == "ints":
        return torch.from_numpy(rng.randint(0, spec["high"], shape).astype(np.int64))
    if spec["kind"] == "floats":
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
    if spec["kind"] == "lengths":
        return torch.arange(shape[1]) < torch.tensor(spec["lengths"])[:, None]
    bools = torch.from_numpy(rng.random_sample(shape) < 0.7)
    bools[..., 0] = True
    return bools


def peer_state(case: dict[str, Any]) -> dict[str, Tensor]:
    out = {}
    for name, shape in case["state"].items():
        v = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
        plain = len(shape) <= 1 and not name.endswith("bias")
        out[name] = torch.from_numpy(np.asarray(1 + np.float32(0.1) * v if plain else np.float32(0.2) * v))
    return out


def expected(case: dict[str, Any]) -> Tensor:
    raw = base64.b64decode(case["output"]["f32"])
    return torch.from_numpy(np.frombuffer(raw, dtype="<f4").copy()).reshape(case["output"]["shape"])


def build(case: dict[str, Any]) -> torch.nn.Module:
    """Our model for a case, without the peer's weights."""
    options = BASE | {k: tuple(v) if isinstance(v, list) else v for k, v in case.get("layers", {}).items()}
    if "pattern" in options:
        del options["depth"]
    around = case.get("wrapper_kwargs") or {}
    model: torch.nn.Module
    if case.get("layers_class"):
        model = getattr(xt_blocks, case["layers_class"])(**options)
        if case.get("wrapper"):
            model = getattr(xt_blocks, case["wrapper"])(attn_layers=model, **around)
    else:
        model = getattr(xt_blocks, case["wrapper"])(**around)
    if case.get("outer"):
        model = getattr(xt_blocks, case["outer"])(model, **case.get("outer_kwargs", {}))
    return model


def loaded(case: dict[str, Any]) -> Any:
    """Our model with the peer's weights."""
    return load_x_transformers(build(case), peer_state(case)).eval()


@torch.no_grad()
def output(case: dict[str, Any], model: Any) -> Tensor:
    """What our model gives, segments of a long text one behind the other."""
    kwargs = {name: tensor(spec) for name, spec in case.get("kwargs", {}).items()}
    if "segments" not in case:
        return model(*(tensor(spec) for spec in case["args"]), **kwargs)
    out, mems = [], None
    for i in range(case["segments"]):
        segment = tensor(case["args"][0] | {"seed": case["args"][0]["seed"] + i})
        logits, mems = model(segment, mems=mems, return_mems=True, **kwargs)
        out.append(logits)
    return torch.stack(out)
