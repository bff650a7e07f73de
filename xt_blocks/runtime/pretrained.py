"""Models as folders: `model.save_pretrained(folder)`, `Class.from_pretrained(folder)`.

    config.json         the version that wrote it, the pattern's text, arguments that no graph says, and of a model that
                        was read from a Hugging Face folder, its configuration
    graph.json          the graph, which is the model; an encoder-decoder has encoder.json and decoder.json, and a
                        model over images and texts image.json and text.json
    model.safetensors   the weights, as `weights` writes them

Owns what is in the folder. Leaves the weights' files to `weights`, and the hub to `hub`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from blockdsl import __version__
from blockdsl.errors import UserError
from blockdsl.files import read_object, write_whole

from . import hub
from .devices import device_of
from .weights import MAX_SHARD_BYTES, read_weights, write_weights

if TYPE_CHECKING:
    from typing_extensions import Self

    from blockdsl import BlockGraph

CONFIG = "config.json"
_NAMES = (("",), ("encoder", "decoder"), ("image", "text"))  # of a model's graphs


class Saved(NamedTuple):
    """A folder as `save_pretrained` writes it, without the weights.

    Attributes:
        graphs: by name, as `Drawn.graphs` has them.
        config: of config.json.
    """

    folder: Path
    graphs: dict[str, BlockGraph]
    config: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Saved:
        """Raises UserError when it is no such folder, GraphError when a graph in it is at fault."""
        config = read_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        if "xt_blocks" not in config:
            other = "from_hugging_face reads it" if "model_type" in config else "save_pretrained writes such"
            raise UserError(f"{folder} is no folder of a model of xt_blocks; xt_blocks.{other}")
        names = next((names for names in _NAMES if (folder / _file(names[0])).is_file()), _NAMES[0])
        return cls(folder, {name: _graph(folder / _file(name)) for name in names}, config)


class Pretrained:
    """A module made of block graphs that is written to a folder and read from one.

    A class says how it is made from its graphs (`from_graphs`), and which arguments they do not say (`arguments`).

    Attributes:
        hugging_face: the configuration of a model that was read from a Hugging Face folder; writing it back needs it.
    """

    hugging_face: dict[str, Any] | None = None
    graphs: Any

    @classmethod
    def from_graphs(cls, graphs: Mapping[str, BlockGraph], **arguments: Any) -> Self:
        """The model of these graphs. Raises UserError where they are another class's."""
        raise NotImplementedError

    def arguments(self) -> dict[str, Any]:
        """The arguments of `from_graphs` that the model was made with."""
        return {}

    def save_pretrained(self, folder: str | PathLike[str], *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        """Write the model into a folder, which is made; `from_pretrained` reads it back, weights and graph alike.

        Args:
            folder: where to. A model that is there is replaced.
            max_shard_bytes: weights above that are several files and an index.

        Raises:
            UserError: the module has other weights than its graph says, as with adapters or layers in another's place,
                or weights that are elsewhere.
            OSError: the disk refuses.
        """
        module = cast(nn.Module, self)
        tensors = {name.replace("_orig_mod.", ""): tensor for name, tensor in module.state_dict().items()}
        _check(tensors, cast(nn.Module, self._empty(self.graphs, self.arguments())).state_dict())
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        write_weights(path, tensors, max_shard_bytes)
        graphs: dict[str, BlockGraph] = self.graphs
        for old in chain(*_NAMES):
            (path / _file(old)).unlink(missing_ok=True)
        for name, graph in graphs.items():
            write_whole(path / _file(name), graph.to_json() + "\n")
        config = config_of(graphs, self.arguments())
        if self.hugging_face is not None:
            config["hugging_face"] = self.hugging_face
        write_whole(path / CONFIG, json.dumps(config, indent=1) + "\n")

    @classmethod
    def from_pretrained(
        cls,
        folder: str | PathLike[str],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
    ) -> Self:
        """The model that `save_pretrained` wrote, in evaluation mode.

        Args:
            folder: where it is; or `user/name`, a repository of the Hugging Face hub (with huggingface_hub installed).
            device: of the weights; the CPU by default.
            dtype: of floating-point weights; by default as they were written.
            revision: of a repository: a branch, a tag or a commit.

        Raises:
            UserError: the folder is none of a model, or of one of another class, or its weights are damaged or of
                another graph; or there is no such device.
            GraphError: a graph is at fault.
        """
        if device is not None:
            device = device_of(device)
        saved = Saved.read(hub.folder_of(Path(folder) if not isinstance(folder, str) else folder, revision))
        arguments = saved.config.get("arguments", {})
        model = cls._empty(saved.graphs, arguments)
        tensors, shared = read_weights(saved.folder, device, dtype)
        module = cast(nn.Module, model)
        if {name for name, _ in module.named_buffers()} - module.state_dict().keys():
            model = cls.from_graphs(saved.graphs, **arguments)  # buffers that no file has are computed
            module = cast(nn.Module, model).to(device=device, dtype=dtype)
        try:
            module.load_state_dict(tensors, assign=True)
        except RuntimeError as error:
            raise UserError(f"the weights in {saved.folder} are of another graph: {error}") from None
        for name, first in shared.items():
            _share(module, name, first)
        if (configuration := saved.config.get("hugging_face")) is not None:
            model.hugging_face = configuration
        module.eval()
        return model

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        message: str = "Model of xt_blocks",
        revision: str | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes to a repository `user/name` of the Hugging Face hub, made if it is new.

        Returns:
            the address of the commit.

        Raises:
            UserError: huggingface_hub is not installed, or `save_pretrained` refuses.
        """
        return hub.push(self.save_pretrained, repository, private, message, revision)

    @classmethod
    def _empty(cls, graphs: Mapping[str, BlockGraph], arguments: Mapping[str, Any]) -> Self:
        """The model without memory for its weights."""
        with torch.device("meta"):
            return cls.from_graphs(graphs, **arguments)


def config_of(graphs: Mapping[str, BlockGraph], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says of a model of these graphs."""
    patterns = {name or "pattern": graph.pattern for name, graph in graphs.items()}
    return {"xt_blocks": __version__, **patterns, "arguments": dict(arguments)}


def the_graph(graphs: Mapping[str, BlockGraph], owner: type, reads: str | None) -> BlockGraph:
    """The one graph of a model of class `owner`.

    Raises:
        UserError: there are two, or it reads something else than that class does.
    """
    if set(graphs) != {""}:
        raise UserError(f"this is an encoder-decoder, and {owner.__name__} is none; XTransformer is")
    if graphs[""].reads != reads:
        found = f"a model over {graphs[''].reads}" if graphs[""].reads else "a stack alone"
        raise UserError(f"this is {found}, and no {owner.__name__}; xt_blocks.from_pretrained reads either")
    return graphs[""]


def _file(graph: str) -> str:
    return f"{graph or 'graph'}.json"


def _graph(path: Path) -> BlockGraph:
    from blockdsl import BlockGraph  # needs networkx

    try:
        return BlockGraph.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UserError as error:
        raise type(error)(f"{path}: {error}") from None


def _check(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise UserError unless the tensors are those of the graph."""
    for name in (*expected, *tensors):
        if name not in tensors:
            raise UserError(f"the model has no weight '{name}', which its graph says; merge or unload adapters first")
        if name not in expected:
            raise UserError(
                f"the model has a weight '{name}' that its graph does not say; merge or unload adapters first"
            )
        there, said = tuple(tensors[name].shape), tuple(expected[name].shape)
        if there != said:
            raise UserError(f"the weight '{name}' is {there}, and {said} in the graph")
        if tensors[name].is_meta:
            raise UserError(f"the weight '{name}' is not in memory but on the meta device")


def _share(module: nn.Module, name: str, first: str) -> None:
    """Make the parameter or buffer `name` the one that is called `first`."""
    (owner, leaf), (first_owner, first_leaf) = ((n.rpartition(".")[0], n.rpartition(".")[2]) for n in (name, first))
    target, source = module.get_submodule(owner), module.get_submodule(first_owner)
    setattr(target, leaf, getattr(source, first_leaf))
