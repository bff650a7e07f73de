"""The pictures on the pages, by the name of their file under docs/pictures."""

from __future__ import annotations

import blockdsl
from blockdsl import Measurement

from .pages import DOCS

PICTURES = DOCS / "pictures"


def pictures() -> dict[str, str]:
    """File name → SVG."""
    gpt2 = {"dim": 768, "heads": 12, "causal": True, "num_tokens": 50257, "max_seq_len": 1024, "tie_embedding": True}
    nemotron_h = blockdsl.from_megatron("M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-")
    both = "set dim=512, num_tokens=37000, max_seq_len=1024; (a f)*6 => (a c f)*6"
    zamba = """
    set dim=64, heads=4, causal, attn_dim_head=32, ssm_state=16, ssm_dim_head=16;
    one = ^x a(concat=e, scale_residual_constant=0)@a f(lora_rank=8, scale_residual_constant=0)@f
          <x(linear) m(scale_residual_constant=0) <x;
    ^e m*2 (one m*2)*3
    """
    small = {"dim": 512, "heads": 8, "causal": True, "num_tokens": 4096, "max_seq_len": 1024}
    plan = blockdsl.compile("(a f)*6", **small).plan("pp=2,tp=2", seq_len=1024, batch=64, memory="16GB")
    few = blockdsl.compile("(a f)*4", dim=64, heads=2, causal=True, num_tokens=256, max_seq_len=128)
    # made up, so that the picture has all there is to see; `blockdsl importance RUN` measures them
    gains = {"a0": 0.911, "f1": 0.604, "a2": 0.452, "f3": 0.161, "a4": 0.118, "f5": 0.057, "a6": 0.021, "f7": 0.094}
    more = "loss without the block, minus that of the whole model"
    importance = Measurement(more, "bits/byte", gains, "made-up numbers, to show the picture")
    return {
        "importance.svg": few.to_svg(overlay=importance, columns=2),
        "folded.svg": few.to_svg(overlay=importance, unfold=False),
        "plan.svg": plan.cut().to_svg(color="stage"),
        "hybrid.svg": blockdsl.compile(nemotron_h, dim=4096, heads=32).to_svg(),
        "decoder.svg": blockdsl.compile("(a f)*12", **gpt2).to_svg(),
        "stages.svg": blockdsl.compile("f a f | a*6 f*6 | sandwich(6)", dim=512).to_svg(),
        "skips.svg": blockdsl.compile("(^u a f)*6 (<u(pop, cat) a f)*6", dim=512).to_svg(),
        "dense.svg": blockdsl.compile("^h (a f <h(all, gain) ^h)*12", dim=512).to_svg(),
        "shared_kv.svg": blockdsl.compile("(a ^k f a(kv=k) f)*6", dim=512).to_svg(),
        "shared_block.svg": blockdsl.compile(zamba).to_svg(),
        "encoder_decoder.svg": blockdsl.compile(both).to_svg(),
    }
