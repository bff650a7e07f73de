"""Weights of Hugging Face models into ours, and back.

Owns the walk over a family's rows (`blockdsl.hugging_face.family`), which are the whole knowledge of a family. Numbers
are only moved, so that what is read and written back is equal bit for bit.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from importlib import import_module
from itertools import accumulate
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from blockdsl.errors import UserError
from blockdsl.files import read_object, write_whole
from blockdsl.hugging_face import read
from blockdsl.hugging_face.encoder_decoder import KEYS, generation_config
from blockdsl.hugging_face.family import Layout, PartOf, Reading, Tied, Weight, Zeros
from blockdsl.registry.kinds import kinds

from ..generation.autoregressive import AutoregressiveWrapper
from ..generation.seq2seq import XTransformer
from ..kernels.compat import uncompiled
from ..models.dual import DualEncoder
from ..models.lower import lower_stream
from ..runtime.weights import MAX_SHARD_BYTES, write_weights
from .tensors import Tensors

if TYPE_CHECKING:
    from blockdsl import BlockGraph

Model = Any
GENERATION = "generation_config.json"


def from_hugging_face(
    source: str | PathLike[str] | Any, *, dtype: torch.dtype | None = None, architecture: str | None = None
) -> Model:
    """Our model with the weights of a Hugging Face one, in evaluation mode.

    Args:
        source: a folder with a config.json and weights, or a model of `transformers`.
        dtype: of the parameters; None: that of the weights.
        architecture: the class whose weights they are; None: the one that the configuration names. That of a family
            without a head, as LlamaModel, leaves a head out.

    Returns:
        a TransformerWrapper, or what else the configuration says. Its attribute `hugging_face` is the configuration.
        Dropout is off; it is an option of ours to set where the model is trained.

    Raises:
        UserError: the folder is not there, or a file of it missing or damaged; its model type, its class, or a key
            of its configuration is not known; it needs an option that there is not; its weights are quantised; a
            tensor is missing, unexpected or of another shape.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise UserError(f"dtype must be one of floating-point numbers, not {dtype}")
    config, tensors, architecture = _opened(source, architecture)
    reading = read(config, architecture)
    config = reading.family.amended(config, _once(tensors))
    generation = _generation(source)
    reading = read({**config, **generation}, architecture)
    with torch.device("meta"):
        model = _built(reading)
    _fill(model, reading, tensors, dtype)
    ends = {name: value for name, value in generation.items() if name == "eos_token_id"}  # often said there alone
    model.hugging_face = {**config, **ends, "architectures": [reading.architecture]}
    return model.eval()


def to_hugging_face(
    model: Model,
    folder: str | PathLike[str],
    *,
    config: Mapping[str, Any] | str | PathLike[str] | None = None,
    architecture: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a folder that `transformers` loads: config.json and model.safetensors.

    An encoder-decoder has a generation_config.json too, which says its start and the tokens that it forces.

    Args:
        model: ours, or an AutoregressiveWrapper around it.
        folder: made where it is not there.
        config: the configuration, a dict or a file, of a model that is this one; None: that of the model, if it was
            read from one.
        architecture: as in `from_hugging_face`.
        max_shard_bytes: weights above that are several files and an index.

    Raises:
        UserError: there is no configuration, or it says another model; the message has the differences. Or the model
            has other weights than its graph says, as with adapters or packed ones.
    """
    model = uncompiled(model)
    model = model.net if isinstance(model, AutoregressiveWrapper) else model
    reading = read(_configuration(model, config), architecture)
    _check_same(model, reading)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = dict(their_tensors(model, reading))
    write_weights(folder, written, max_shard_bytes)
    widest = reduce(torch.promote_types, {tensor.dtype for tensor in written.values()})
    dtype = str(widest).removeprefix("torch.")
    told = {**reading.config, "architectures": [reading.architecture], "dtype": dtype}
    told.pop("torch_dtype", None)
    write_whole(folder / "config.json", _json(told))
    if isinstance(model, XTransformer):
        write_whole(folder / GENERATION, _json(generation_config(model.arguments())))


# Reading -----------------------------------------------------------------------------------------------------------


def _opened(source: Any, architecture: str | None) -> tuple[Mapping[str, Any], Mapping[str, Tensor], str | None]:
    """The configuration, the tensors and the class."""
    told = getattr(source, "config", None)
    if isinstance(source, nn.Module) and hasattr(told, "to_dict"):
        config, name = told.to_dict(), architecture or type(source).__name__  # type: ignore[union-attr]
        _check_not_quantised(config)
        return {**config, "architectures": [name]}, _as_in_files(source), name
    if not isinstance(source, str | PathLike):
        raise TypeError(f"from_hugging_face takes a folder or a model of transformers, not {type(source).__name__}")
    folder = Path(source)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; from the hub, a model is downloaded first: hf download {folder}")
    config = read(folder, architecture).config
    _check_not_quantised(config)
    return config, Tensors(folder), architecture


def _check_not_quantised(config: Mapping[str, Any]) -> None:
    if quantised := config.get("quantization_config"):
        how = quantised.get("quant_method", "") if isinstance(quantised, Mapping) else ""
        raise UserError(f"quantised weights are not read: quantization_config says {how or quantised!r}")


def _as_in_files(source: nn.Module) -> Mapping[str, Tensor]:
    """The tensors of a model of `transformers` under the names of its files, which may be those of an older release."""
    try:
        loading = import_module("transformers.core_model_loading")
    except ImportError:  # a release in which they are the same
        return source.state_dict()
    named: Mapping[str, Tensor] = loading.revert_weight_conversion(source, source.state_dict())
    return named


def _generation(source: Any) -> dict[str, Any]:
    """What a source says of generation beside its configuration, as releases of transformers from 5 on do."""
    if isinstance(source, nn.Module):
        own: Any = getattr(source, "generation_config", None)
        said = {} if own is None else own.to_dict()
    elif (file := Path(source) / GENERATION).is_file():
        said = read_object(file)
    else:
        return {}
    return {name: said[name] for name in KEYS if said.get(name) is not None}


def _once(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors; of those that are one in memory, the first."""
    if isinstance(tensors, Tensors):
        return [*tensors]
    first: dict[tuple[int, torch.Size], str] = {}
    for name, tensor in tensors.items():
        first.setdefault((tensor.data_ptr(), tensor.shape), name)
    return [*first.values()]


def _built(reading: Reading) -> Model:
    """The model of a configuration, with weights yet to come."""
    graphs = _graphs(reading)
    if "" in graphs:
        return lower_stream(graphs[""])
    if "image" in graphs:
        return DualEncoder.from_graphs(graphs, **reading.parts["image"].arguments)
    return XTransformer.from_graphs(graphs, **reading.parts["decoder"].arguments)


def _graphs(reading: Reading) -> dict[str, BlockGraph]:
    """The graph of each component, by its name."""
    graphs = reading.graphs()
    return graphs[""].streams() if "" in graphs else graphs


def _fill(model: Model, reading: Reading, tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> None:
    """Give every parameter of a model on the meta device its numbers, one after another."""
    names, found = _Names(reading, tensors), _dtype_of(reading.config, tensors) if dtype is None else dtype
    copies, ties = _copies(model, reading)
    problems = [f"missing: {name}" for copy in copies for name in copy.theirs if names.of(name) is None]
    problems += names.unexpected(copies, ties)
    unfilled = {id(tensor): name for name, tensor in model.state_dict(keep_vars=True).items()}
    for copy in copies:
        unfilled.pop(id(copy.parameter), None)
    problems += [f"not there: {name} of our model" for name in unfilled.values()]
    if problems:
        raise UserError("\n  ".join(["these weights do not fit the configuration:", *problems]))
    for copy in copies:
        copy.read(tensors, names, found)
    for tie in ties:
        if isinstance(tie, Zeros):
            if (alias := names.of(tie.name)) and tensors[alias].any():
                raise UserError(f"{tie.name} is not all zeros, and there is no place for it here")
        elif (alias := names.of(tie.name)) and not torch.equal(tensors[alias], tensors[names.needed(tie.of)]):
            raise UserError(f"{tie.name} is not {tie.of}, which the configuration ties it to")


def _dtype_of(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> torch.dtype:
    """That of the tensors; where they have several, the configuration's."""
    known = tensors.dtypes if isinstance(tensors, Tensors) else {name: t.dtype for name, t in tensors.items()}
    found = {dtype for dtype in known.values() if dtype.is_floating_point}
    if len(found) == 1:
        return found.pop()
    said = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
    dtype = getattr(torch, said, None)
    if not isinstance(dtype, torch.dtype):
        several = ", ".join(sorted(map(str, found))) or "no floating-point numbers"
        raise UserError(f"the weights are of several types ({several}): say which with dtype=")
    return dtype


class _Names:
    """Their names as a family writes them → as a source has them: with or without the prefix."""

    def __init__(self, reading: Reading, tensors: Mapping[str, Tensor]) -> None:
        self.family, self.base, self.tensors = reading.family, reading.base, tensors

    def of(self, name: str) -> str | None:
        """The source's name of a tensor; old files call a norm's weight and bias gamma and beta."""
        spelled = [name, *(name.replace(*pair) for pair in self.family.other_names if pair[0] in name)]
        names = [one for full in spelled for one in (full, full.removeprefix(self.family.prefix))]
        old = (re.sub(r"\.weight$", ".gamma", re.sub(r"\.bias$", ".beta", one)) for one in names)
        return next((one for one in (*names, *old) if one in self.tensors), None)

    def needed(self, name: str) -> str:
        found = self.of(name)
        assert found is not None
        return found

    def unexpected(self, copies: list[_Copy], ties: list[Tied | Zeros]) -> list[str]:
        """The tensors that no row names; those of another head are warned of."""
        read = {self.of(name) for copy in copies for name in copy.theirs} | {self.of(tie.name) for tie in ties}
        rest = [name for name in self.tensors if name not in read and not _ends(name, self.family.ignored)]
        left = [name for name in rest if _ends(name, self.family.unused) or self._of_a_head(name)]
        if left:
            warnings.warn(f"not loaded, as they are of another head: {', '.join(left)}", stacklevel=5)
        return [f"unexpected: {name}" for name in rest if name not in left]

    def _of_a_head(self, name: str) -> bool:
        """Whether it stands beside the base model, which alone was asked for."""
        prefix = self.family.prefix
        others = any(other.startswith(prefix) for other in self.tensors)
        return bool(self.base and prefix and others and not name.startswith(prefix))


def _ends(name: str, ends: tuple[str, ...]) -> bool:
    """Whether a name has one of these ends, or is in a module that is called so, with a dot at its end."""
    return any(name == end or name.endswith(f".{end}") or (end[-1] == "." and name.startswith(end)) for end in ends)


# Both ways ---------------------------------------------------------------------------------------------------------


class _Copy(NamedTuple):
    """One of our parameters or buffers, and the names of theirs that it is made of."""

    module: nn.Module
    name: str
    row: Weight
    theirs: tuple[str, ...]

    @property
    def parameter(self) -> Tensor:
        found: Tensor = getattr(self.module, self.name)
        return found

    def split(self, ours: Tensor) -> tuple[Tensor, ...]:
        """The rows of our tensor that each of theirs has."""
        rows = ours if self.row.experts is None else ours.flatten(0, 1)
        if len(self.theirs) == 1:
            return (rows,)
        return torch.split(rows, [*self.row.sizes] or rows.shape[0] // len(self.theirs))

    def read(self, tensors: Mapping[str, Tensor], names: _Names, dtype: torch.dtype) -> None:
        """Make the parameter of their tensors, of which one at a time is in memory."""
        out = torch.empty(self.parameter.shape, dtype=dtype, device="cpu")
        for name, layout, rows in zip(self.theirs, self.row.layouts, self.split(out), strict=True):
            tensor = tensors[names.needed(name)]
            if not tensor.is_floating_point():
                raise UserError(f"{name} is of whole numbers ({tensor.dtype}): quantised weights are not read")
            ours = layout.ours(tensor)
            if ours.numel() != rows.numel() or (ours.ndim == rows.ndim and ours.shape != rows.shape):
                raise UserError(f"{name} is {tuple(tensor.shape)}, and the configuration says {tuple(rows.shape)}")
            rows.copy_(ours.reshape(rows.shape))
        setattr(self.module, self.name, nn.Parameter(out) if isinstance(self.parameter, nn.Parameter) else out)

    def written(self) -> Iterator[tuple[str, Layout, Tensor]]:
        """Their tensors, of this parameter, with how each is stored; of a PartOf, the rows in our order."""
        own = self.parameter.detach()
        for name, layout, rows in zip(self.theirs, self.row.layouts, self.split(own), strict=True):
            yield name, layout, layout.theirs(rows)


def _copies(model: Model, reading: Reading) -> tuple[list[_Copy], list[Tied | Zeros]]:
    """Every parameter that rows of the reading fill, and the tensors that no parameter has."""
    copies: list[_Copy] = []
    ties: list[Tied | Zeros] = []
    for part, net in _nets(model).items():
        rows, layers = reading.parts[part].weights, reading.parts[part].layers
        of_net = net.state_dict(keep_vars=True)
        around = {f"model.{name}": parameter for name, parameter in model.named_parameters(recurse=False)}
        parameters, modules = of_net | around, dict(net.named_modules()) | {"model": model}
        for row in rows:
            if not isinstance(row, Weight):
                ties.append(row)
                continue
            for place, layer in _places(net, row.ours, layers):
                for last in ("", ".weight", ".bias"):
                    if place + last in parameters:
                        module, _, own = (place + last).rpartition(".")
                        theirs = tuple(name.replace("{i}", str(layer)) + last for name in row.names)
                        copies.append(_Copy(modules[module], own, row, theirs))
    return copies, ties


def _nets(model: Model) -> dict[str, Model]:
    """The models around stacks by the names of the components."""
    if isinstance(model, DualEncoder):
        return {"image": model.image, "text": model.text}
    return {"encoder": model.encoder, "decoder": model.decoder.net} if isinstance(model, XTransformer) else {"": model}


def _places(net: Model, ours: str, layers: int | Sequence[str]) -> Iterator[tuple[str, int]]:
    """What a row's name stands for in the model, with the layer it is in."""
    slot, _, rest = ours.partition(".")
    if _kind(slot) not in kinds():
        yield ours, 0
        return
    for layer, nodes in enumerate(_layers([*net.attn_layers.blocks], layers)):
        alike = [node for node in nodes if _kind(node) == _kind(slot)]
        for node in alike[int(slot.removeprefix(_kind(slot)) or 1) - 1 :][:1]:
            yield f"attn_layers.blocks.{node}.{rest}", layer


def _layers(nodes: Sequence[str], layers: int | Sequence[str]) -> Iterator[Sequence[str]]:
    """The blocks of each layer."""
    sizes = [len(nodes) // layers] * layers if isinstance(layers, int) else [len(layer.split()) for layer in layers]
    for end, size in zip(accumulate(sizes), sizes, strict=True):
        yield nodes[end - size : end]


def _kind(node: str) -> str:
    return node.rstrip("0123456789")


# Writing -----------------------------------------------------------------------------------------------------------


def _configuration(model: Model, config: Any) -> Any:
    if config is None:
        config = getattr(model, "hugging_face", None)
    if config is None:
        raise UserError("the model was not read from a configuration: give config=, one that says this model")
    return config


def _json(said: Mapping[str, Any]) -> str:
    return json.dumps(said, indent=2, sort_keys=True) + "\n"


def _check_same(model: Model, reading: Reading) -> None:
    graphs = _graphs(reading)
    for name, net in _nets(model).items():
        if found := graphs[name].diff(net.graph):
            raise UserError(f"the configuration says another model than this:\n{found.to_text()}")
    with torch.device("meta"):
        expected = {name: parameter.shape for name, parameter in _built(reading).named_parameters()}
    there = {name: parameter.shape for name, parameter in model.named_parameters()}
    if others := sorted({name for name, _ in expected.items() ^ there.items()}):
        raise UserError(
            f"the model has other weights than its graph says: {', '.join(others)}; unpack it, or merge its adapters"
        )


def their_tensors(model: Model, reading: Reading) -> Iterator[tuple[str, Tensor]]:
    """Their tensors by name, of a model that the reading says."""
    prefix = reading.family.prefix if reading.base else ""
    copies, ties = _copies(model, reading)
    pieces: dict[str, tuple[Layout, list[Tensor]]] = {}  # of a tensor that several of our parameters make
    for copy in copies:
        for name, layout, tensor in copy.written():
            if isinstance(layout, PartOf):
                pieces.setdefault(name, (layout.whole, []))[1].append(tensor)
            else:
                yield name.removeprefix(prefix), tensor
    for name, (whole, tensors) in pieces.items():
        yield name.removeprefix(prefix), whole.theirs(torch.cat(tensors))
    for row in ties:
        if isinstance(row, Zeros):
            yield row.name, copies[0].parameter.new_zeros(row.shape)
