"""What models with Mamba-2 share: the settings of its blocks, and the names of their weights."""

from __future__ import annotations

import math
from typing import Any

from ..errors import UserError, shortened
from .config import Config
from .family import Row, Weight


def state_space_settings(config: Config, *, eps: float, inner: int | None, **sizes: int) -> dict[str, Any]:
    """Settings of a family whose norm of the gated output is over the features of each group.

    Args:
        eps: of that norm.
        inner: features of all heads, which transformers wants to be heads · dim_head; None: they are.
        sizes: state, heads, dim_head, groups and kernel.

    Raises:
        UserError: the features are others.
    """
    heads, dim_head = sizes["heads"], sizes["dim_head"]
    if inner not in (None, heads * dim_head):
        said = config.numbers_read()
        raise UserError(f"{heads} heads of {dim_head} features are not the {inner} of the state space, by {said}")
    # about initial weights and training, what a kernel computes at once, and which kernel that is
    config.ignore("chunk_size", "mamba_chunk_size", "time_step_rank", "time_step_max", "time_step_floor")
    config.ignore("use_mamba_kernels", "use_mem_eff_path", "rescale_prenorm_residual", "residual_in_fp32")
    config.ignore("mamba_ssm_cache_dtype", "num_logits_to_keep", "z_loss_coefficient")
    return {
        **{f"ssm_{name}": size for name, size in sizes.items()},
        "ssm_gated_norm": "group" if sizes["groups"] > 1 else "all",
        "ssm_gated_norm_eps": eps,
        **step_limits(config),
    }


def bamba_settings(config: Config, *, eps: float, inner: int | None = None) -> dict[str, Any]:
    """The same by the keys that Bamba, Granite 4 and Falcon-H1 call mamba_*.

    Args:
        inner: features of all heads; None: `mamba_expand` times the width.
    """
    expanded = config.integer("mamba_expand", 2) * config.integer("hidden_size")
    inner, heads = expanded if inner is None else inner, config.integer("mamba_n_heads", 128)
    auto = config.get("mamba_d_head", "auto") == "auto"
    return {
        **state_space_settings(
            config,
            eps=eps,
            inner=inner,
            state=config.integer("mamba_d_state", 256),
            heads=heads,
            dim_head=inner // heads if auto else config.integer("mamba_d_head"),
            groups=config.integer("mamba_n_groups", 1),
            kernel=config.integer("mamba_d_conv", 4),
        ),
        "ssm_conv_bias": config.flag("mamba_conv_bias", True),
        "ssm_bias": config.flag("mamba_proj_bias", False),
    }


def step_limits(config: Config) -> dict[str, Any]:
    """What the steps Δ are held within, by `time_step_limit`, whose ends may be infinite."""
    said = config.many("time_step_limit", (0.0, math.inf))
    try:
        least, most = map(_number, said)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{config.within}time_step_limit must be two numbers, not {shortened(repr(said))}") from None
    return {"ssm_dt_limit_min": least, "ssm_dt_limit_max": None if math.isinf(most) else most}


def _number(end: Any) -> float:
    """JSON has no infinity; files write it as a word, also within an object."""
    return _number(next(iter(end.values()))) if isinstance(end, dict) else float(end)


def state_space_rows(mixer: str) -> list[Row]:
    """The weights of a Mamba-2 block, whose module in theirs is `mixer`."""
    return [
        Weight("m.layer.to_in", f"{mixer}.in_proj"),
        Weight("m.layer.conv", f"{mixer}.conv1d"),
        *(Weight(f"m.layer.{name}", f"{mixer}.{name}") for name in ("A_log", "dt_bias", "D")),
        Weight("m.layer.norm", f"{mixer}.norm"),
        Weight("m.layer.to_out", f"{mixer}.out_proj"),
    ]
