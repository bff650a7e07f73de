"""Every variant of the stack, and every model, computes on the device what it computes on the CPU.

In float64, so that rounding says nothing: what is looked for is a tensor on another device than the others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import xt_blocks
from xt_blocks import Decoder, Encoder

from ..benchmarks.case import Options
from ..blocks.variants import VARIANTS, inputs, stack
from .check import Check

TOLERANCE = 1e-9
STACK: dict[str, Any] = {"dim": 32, "depth": 2, "heads": 2, "attn_dim_head": 16}
TOKENS: dict[str, Any] = {"num_tokens": 16, "max_seq_len": 12}


def checks() -> list[Check]:
    models = [Check(f"devices/{name}", partial(model, name)) for name in MODELS]
    return models + [Check(f"devices/variant: {name}", partial(variant, name), later=True) for name in VARIANTS]


def variant(name: str, options: Options) -> None:
    """Outputs and gradients of a stack."""
    net = stack(name).double()
    x, more = inputs(net)
    x, more = x.double(), {key: value.double() for key, value in more.items()}

    def ran(device: str) -> dict[str, Tensor]:
        own = copy.deepcopy(net).to(device)
        out = own(x.to(device), **{key: value.to(device) for key, value in more.items()})
        out.pow(2).sum().backward()
        return {"output": out, **{key: value.grad for key, value in own.named_parameters() if value.grad is not None}}

    same(ran(options.device), ran("cpu"))


def model(name: str, options: Options) -> None:
    """What a model gives that draws no random numbers; that which does is run alone."""
    make, run = MODELS[name]
    net = make().double().eval()
    same(run(copy.deepcopy(net).to(options.device), options.device), run(net, "cpu"))


def same(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(
            got[name].cpu(), value, rtol=TOLERANCE, atol=TOLERANCE, msg=lambda text, name=name: f"{name}: {text}"
        )


# The models --------------------------------------------------------------------------------------------------------


def tokens(device: str, seq: int = 9) -> Tensor:
    """(2, seq) tokens; the last of the vocabulary is not among them."""
    drawn = torch.randint(15, (2, seq), generator=torch.Generator().manual_seed(0))
    return drawn.to(device)


def vectors(device: str, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(device)


def padding(device: str, seq: int = 9) -> Tensor:
    """(2, seq) bool: the second row has two tokens fewer, padded on the left."""
    return (torch.arange(seq) >= torch.tensor([[0], [2]])).to(device)


def decoder(**tokens: Any) -> nn.Module:
    return xt_blocks.TransformerWrapper(**(TOKENS | tokens), attn_layers=Decoder(**STACK, rotary_pos_emb=True))


def language(net: nn.Module, device: str) -> dict[str, Tensor]:
    wrapper = xt_blocks.AutoregressiveWrapper(net)
    ragged = [row[-n:] for row, n in zip(tokens(device, 6), (6, 4), strict=True)]
    generator = torch.Generator(device).manual_seed(0)
    wrapper.generate(tokens(device, 4), 4, temperature=0.9, top_k=5, top_p=0.9, min_p=0.01, generator=generator)
    return {
        "loss": wrapper(tokens(device), mask=padding(device)),
        "generated": wrapper.generate(ragged, 5, temperature=0.0, eos_token=3),
        "past the window": wrapper.generate(tokens(device, 10), 6, temperature=0.0),
        "logits": net(tokens(device), mask=padding(device))[padding(device)],
        "with a mask of pairs": net(tokens(device), attn_mask=torch.ones(9, 9, dtype=torch.bool, device=device).tril(-1)),
        "an attention map": xt_blocks.attention_map(net, tokens(device), "a0", head=0),
        "record": torch.tensor([own["stream_norm"] for own in xt_blocks.record(net, tokens(device)).values()], dtype=torch.float64),
    }  # fmt: skip


def forgetful(net: nn.Module, device: str) -> dict[str, Tensor]:
    wrapper = xt_blocks.AutoregressiveWrapper(net, mask_prob=0.2).train()
    loss = wrapper(tokens(device))
    loss.backward()
    assert loss.isfinite()
    return {}


def segments(net: nn.Module, device: str) -> dict[str, Tensor]:
    wrapper = xt_blocks.XLAutoregressiveWrapper(net)
    return {
        "loss": wrapper(tokens(device, 30)),
        "generated": wrapper.generate(tokens(device, 14), 12, temperature=0.0),
    }


def encoder_decoder() -> nn.Module:
    sides = {
        f"{side}_{key}": value for side in ("enc", "dec") for key, value in (TOKENS | STACK).items() if key != "dim"
    }
    return xt_blocks.XTransformer(dim=STACK["dim"], **sides)


def translation(net: Any, device: str) -> dict[str, Tensor]:
    return {
        "loss": net(tokens(device), tokens(device, 7), mask=padding(device)),
        "generated": net.generate(tokens(device), tokens(device, 1), 5, mask=padding(device), temperature=0.0),
    }


def masked() -> nn.Module:
    net = xt_blocks.TransformerWrapper(**TOKENS, attn_layers=Encoder(**STACK))
    return xt_blocks.NonAutoregressiveWrapper(net, mask_id=15, steps=3, self_token_critic=True)


def filling(net: Any, device: str) -> dict[str, Tensor]:
    net.train()(tokens(device, 12)).loss.backward()
    net.eval()
    made = net.generate(batch_size=2)
    assert made.shape == (2, 12)
    assert made.device.type == torch.device(device).type
    return {}


def vision() -> nn.Module:
    return xt_blocks.ViTransformerWrapper(
        image_size=16, patch_size=4, num_classes=5, attn_layers=Encoder(**STACK), num_register_tokens=2
    )


def classified(net: nn.Module, device: str) -> dict[str, Tensor]:
    return {"logits": net(vectors(device, 2, 3, 16, 16))}


def continuous() -> nn.Module:
    return xt_blocks.ContinuousTransformerWrapper(
        max_seq_len=12, dim_in=5, dim_out=5, attn_layers=Decoder(**STACK), num_memory_tokens=2
    )


def forecast(net: Any, device: str) -> dict[str, Tensor]:
    wrapper = xt_blocks.ContinuousAutoregressiveWrapper(net)
    return {
        "loss": wrapper(vectors(device, 2, 9, 5), mask=padding(device)),
        "generated": wrapper.generate(vectors(device, 2, 4, 5), 5),
    }


Run = Callable[[Any, str], dict[str, Tensor]]

MODELS: dict[str, tuple[Callable[[], nn.Module], Run]] = {
    "AutoregressiveWrapper": (decoder, language),
    "AutoregressiveWrapper, memory tokens": (partial(decoder, num_memory_tokens=2), language),
    "AutoregressiveWrapper, mask_prob": (decoder, forgetful),
    "XLAutoregressiveWrapper": (partial(decoder, max_mem_len=10), segments),
    "XTransformer": (encoder_decoder, translation),
    "NonAutoregressiveWrapper": (masked, filling),
    "ViTransformerWrapper": (vision, classified),
    "ContinuousAutoregressiveWrapper": (continuous, forecast),
}
