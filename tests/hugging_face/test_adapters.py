"""Adapters by peft on what a selector selects: which layers have them, what they add, that other paths see them."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from blockdsl.errors import UserError
from xt_blocks import AutoregressiveWrapper, Decoder, TransformerWrapper, adapt, pack, parameters

PATTERN = "stem: (a f(glu))*2 | ^u a@t f a@t <u(gain)"


def model() -> TransformerWrapper:
    torch.manual_seed(1)
    layers = Decoder(dim=16, heads=2, pattern=PATTERN)
    return TransformerWrapper(num_tokens=20, max_seq_len=12, attn_layers=layers, use_abs_pos_emb=False).eval()


@pytest.mark.parametrize(("selector", "blocks"), [("a", ["a0", "a2", "a4"]), ("stem: f[1], @t", ["f3", "a4"])])
def test_the_selected_linear_layers_have_adapters_and_nothing_else_trains(selector: str, blocks: list[str]) -> None:
    plain, tokens = model(), torch.arange(9)[None]
    adapted = adapt(copy.deepcopy(plain), selector, lora=4, lora_alpha=8)
    assert torch.equal(adapted(tokens), plain(tokens))
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    linear = [name for name, layer in plain.named_modules() if isinstance(layer, nn.Linear)]
    chosen = [name for name in linear if name.split(".")[2:3] and name.split(".")[2] in blocks]
    assert trained == {f"{name}.lora_{part}.default.weight" for name in chosen for part in "AB"}
    assert len(get_peft_model_state_dict(adapted)) == len(trained)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
        for name in chosen:  # the same by hand: W + 8/4 B A
            layer, own = adapted.get_submodule(name), plain.get_submodule(name)
            own.weight += 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight  # type: ignore[union-attr, index, operator, arg-type]
    torch.testing.assert_close(adapted(tokens), plain(tokens))
    mine, theirs = (
        AutoregressiveWrapper(each).generate(tokens[:, :3], 5, temperature=0.0) for each in (adapted, plain)
    )
    assert torch.equal(mine, theirs)
    with torch.no_grad():
        torch.testing.assert_close(pack(adapted)(tokens), plain(tokens), rtol=1e-4, atol=1e-5)
    assert any(isinstance(module, BaseTunerLayer) for module in adapted.modules())


def test_what_has_no_linear_layer_is_refused() -> None:
    with pytest.raises(UserError, match="have no linear layer to adapt"):
        adapt(model(), "<u")
    with pytest.raises(UserError, match="lora must be a whole number of at least 1, not 0"):
        adapt(model(), "a", lora=0)
    assert parameters(model(), "<u").keys() == {"attn_layers.joins.read0.gain"}
