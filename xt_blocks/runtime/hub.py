"""Folders of models on the Hugging Face hub. huggingface_hub is optional, and imported when it is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from blockdsl.errors import UserError

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def folder_of(name: str | Path, revision: str | None = None) -> Path:
    """The folder of a model: `name` itself, or the local copy of the hub's repository `user/name`.

    What is downloaded stays in the hub's cache; with HF_HUB_OFFLINE=1 nothing but that is read.

    Raises:
        UserError: there is no such folder, and it is no repository that can be had.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists() or not _REPOSITORY.fullmatch(str(name)):
        raise UserError(f"{name} is no folder" + (", but a file" if path.exists() else ""))
    hub = _hub(f"there is no folder {name}, and to look on the hub")
    try:
        return Path(hub.snapshot_download(str(name), revision=revision))
    except (OSError, ValueError) as error:  # of huggingface_hub: no network, no such repository, a wrong name
        said = str(error).strip().splitlines()
        raise UserError(f"there is no folder {name}, and the hub gives none: {said[0] if said else error!r}") from error


def push(save: Callable[[str], None], repository: str, private: bool | None, message: str, revision: str | None) -> str:
    """Upload what `save` writes into a folder; returns the address of the commit."""
    hub = _hub("to push to the hub")
    api = hub.HfApi()
    repository = api.create_repo(repository, private=private, exist_ok=True).repo_id
    with TemporaryDirectory() as folder:
        save(folder)
        done = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message, revision=revision)
    return str(done.commit_url)


def _hub(wish: str) -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(f"{wish}, huggingface_hub is needed: pip install 'xt-blocks[hub]'") from None
    return huggingface_hub
