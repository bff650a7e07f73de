"""A Hugging Face configuration while it is read: which keys were read, and that none is dropped in silence.

Owns typed access to the keys, the keys that say nothing about a model's arithmetic, and the names of activations.
Leaves out what a family's keys mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from ..errors import UserError, nearest, shortened

T = TypeVar("T")
_REQUIRED: Any = object()

# Keys that every family may have, and that say nothing about what a model computes when it is not trained: what wrote
# the file, the names of labels, tokens and defaults of generation, what a call returns, initial weights, dropout; and
# how the numbers of weights are stored, which whoever reads them has to look at.
_SAID = """
_name_or_path _attn_implementation _attn_implementation_autoset _commit_hash architectures attn_implementation
auto_map chunk_size_feed_forward dtype finetuning_task gradient_checkpointing id2label initializer_factor
initializer_range is_encoder_decoder keys_to_ignore_at_inference label2id language_model_type model_type
_num_labels name_or_path num_labels output_attentions output_hidden_states output_past output_router_logits
output_scores prefix pretraining_tp problem_type quantization_config return_dict
return_dict_in_generate task_specific_params tf_legacy_loss tokenizer_class torch_dtype
torchscript transformers_version use_bfloat16 use_cache xla_device

bad_words_ids begin_suppress_tokens bos_token_id cls_token_id decoder_start_token_id diversity_penalty
do_sample early_stopping encoder_no_repeat_ngram_size eos_token_id eos_token_ids exponential_decay_length_penalty
forced_bos_token_id forced_decoder_ids forced_eos_token_id length_penalty mask_token_id max_length min_length
no_repeat_ngram_size num_beam_groups num_beams num_return_sequences pad_token_id remove_invalid_values
repetition_penalty sep_token_id suppress_tokens temperature top_k top_p typical_p unk_token_id
"""
_HARMLESS = frozenset(_SAID.split())

_DROPOUT = ("dropout", "pdrop", "dropout_prob", "dropout_rate", "dropout_fusion")
"""Ends of the names of keys that are about training alone."""

# Keys that files of older releases have whatever the model is, where they say nothing with this value alone.
_PLAIN = {
    "add_cross_attention": False,
    "is_decoder": False,
    "pruned_heads": {},
    "tie_encoder_decoder": False,
    "use_sliding_window": False,
}

_TOO_LARGE = 2**63
"""No size or factor of a model is; JSON's 1e400 is infinite."""

# Their name of an activation → ours.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu2": "relu_squared",
    "silu": "silu",
    "swish": "silu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
}


class Config:
    """The keys of a configuration, each of which is read or refused.

    Args:
        values: the configuration.
        within: where it stands in another one, `text_config.`; empty: it is the whole one.

    Attributes:
        model_type: what `model_type` says.
        architecture: the class whose weights are read, as LlamaForCausalLM.
        base: whether that is the class without a head, as LlamaModel.
    """

    def __init__(self, values: Mapping[str, Any], within: str = "") -> None:
        self.values, self.within = values, within
        self.model_type: str = str(values.get("model_type", ""))
        self.architecture, self.base = "", False
        self.seen: set[str] = set()
        self.inner: list[Config] = []

    def get(self, name: str, default: Any = _REQUIRED) -> Any:
        """A value as it stands; null is as good as left out.

        Raises:
            UserError: it is not there, and there is no default.
        """
        self.seen.add(name)
        value = self.values.get(name)
        if value is not None:
            return value
        if default is _REQUIRED:
            raise UserError(f"the configuration has no {self.within}{name}")
        return default

    def integer(self, name: str, default: Any = _REQUIRED, least: int = 1) -> int:
        """A whole number of at least so much, as nearly all of them are sizes and counts."""
        found: int = self._typed(name, default, int, wanted := f"a whole number of at least {least}")
        if found is not default and not least <= found < _TOO_LARGE:
            raise self._wrong(name, wanted, found)
        return found

    def many(self, name: str, default: Any = _REQUIRED) -> tuple[Any, ...]:
        """A list."""
        return tuple(self._typed(name, default, (list, tuple), "a list"))

    def optional(self, name: str, default: int | None) -> int | None:
        """A whole number or null, which is a value of its own: it is not as good as left out."""
        self.ignore(name)
        return None if self.values.get(name, default) is None else self.integer(name, default)

    def number(self, name: str, default: Any = _REQUIRED, least: float | None = None) -> float:
        """A finite number of at least so much; None: above 0."""
        wanted = "a number above 0" if least is None else f"a number of at least {least:g}"
        found = self._typed(name, default, (int, float), wanted)
        if found is not default and not ((found > 0 if least is None else least <= found) and found < _TOO_LARGE):
            raise self._wrong(name, wanted, found)
        return float(found)

    def numbers(self, name: str, default: Any = _REQUIRED, count: int | None = None) -> tuple[float, ...]:
        """So many finite numbers; None: any."""
        wanted = "a list of numbers" if count is None else f"a list of {count} numbers"
        found = self._typed(name, default, (list, tuple), wanted)
        fit = all(isinstance(one, int | float) and abs(one) < _TOO_LARGE for one in found)
        if not fit or count not in (None, len(found)):
            raise self._wrong(name, wanted, found)
        return tuple(map(float, found))

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        return bool(self._typed(name, default, bool, "true or false"))

    def word(self, name: str, default: Any = _REQUIRED) -> str:
        """A name."""
        return str(self._typed(name, default, str, "a name"))

    def activation(self, name: str, default: Any = _REQUIRED) -> str:
        """The activation that a key names, by our name.

        Raises:
            UserError: there is none like it here.
        """
        return self.activation_of(name, self.word(name, default))

    def activation_of(self, name: str, theirs: str) -> str:
        """The activation that they call `theirs`, which the key `name` has said, by our name."""
        if theirs not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise UserError(f"{self.within}{name}={theirs!r}: there is no such activation here; there are {known}")
        return ACTIVATIONS[theirs]

    def only(self, name: str, value: Any, why: str) -> None:
        """Refuse any value of a key but this one, which is also what it says when it is left out.

        Args:
            why: what we have no option for, the end of a sentence: "queries and keys are clipped".
        """
        found = self.get(name, value)
        if found != value:
            raise self.lacks(f"{name}={found!r}", why)

    def ignore(self, *names: str) -> None:
        """Keys of the family that change nothing in the arithmetic that is built."""
        self.seen.update(names)

    def nested(self, name: str) -> Config:
        """A configuration within this one, the same each time; its keys count too."""
        within = f"{self.within}{name}."
        if known := [inner for inner in self.inner if inner.within == within]:
            self.seen.add(name)
            return known[0]
        values = self.get(name, {})
        if not isinstance(values, Mapping):
            raise UserError(f"{self.within}{name} must be an object, not {shortened(repr(values))}")
        inner = Config(values, within)
        inner.architecture, inner.base = self.architecture, self.base
        self.inner.append(inner)
        return inner

    def per_head(self, features: int, heads: int, of: str, by: str) -> int:
        """The features of a head: all of them, which the key `of` said, over the heads, which `by` said.

        Raises:
            UserError: heads do not share them evenly.
        """
        if features % heads:
            raise UserError(f"{self.within}{by}={heads} does not divide {self.within}{of}={features}")
        return features // heads

    def numbers_read(self) -> str:
        """The keys that were read and are numbers, of this configuration and those within it."""
        return ", ".join(
            f"{config.within}{name}={shortened(repr(value))}"
            for config in (self, *self.inner)
            for name, value in config.values.items()
            if name in config.seen and isinstance(value, int | float) and not isinstance(value, bool)
        )

    def lacks(self, said: str, why: str) -> UserError:
        """The error to raise where the configuration asks for what we have no option for."""
        return UserError(f"{self.within}{said}: {why}, for which there is no option here")

    def check_all_read(self) -> None:
        """Refuse keys that nobody has read and that are not known to be harmless.

        Raises:
            UserError: there are some; each is named, with the nearest that was read.
        """
        lines = [line for config in (self, *self.inner) for line in config._unread()]
        if lines:
            raise UserError("\n  ".join([f"keys that are not known for model_type={self.model_type!r}:", *lines]))

    def _unread(self) -> list[str]:
        lines = []
        for name, value in self.values.items():
            harmless = name in _HARMLESS or name.endswith(_DROPOUT) or value is None
            if name in self.seen or harmless or (name in _PLAIN and value == _PLAIN[name]):
                continue
            like = nearest(name, self.seen)
            lines.append(
                f"{self.within}{name}={shortened(repr(value))}" + (f"; did you mean '{like}'?" if like else "")
            )
        return lines

    def _typed(self, name: str, default: Any, types: type | tuple[type, ...], wanted: str) -> Any:
        value = self.get(name, default)
        if value is default:
            return value
        if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
            raise self._wrong(name, wanted, value)
        return value

    def _wrong(self, name: str, wanted: str, value: Any) -> UserError:
        return UserError(f"{self.within}{name} must be {wanted}, not {shortened(repr(value))}")
