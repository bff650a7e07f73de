"""Tests with the real packages of extras run where they are installed, in the environment of the extra `train-test`."""

from __future__ import annotations

from importlib.util import find_spec

NEEDS = {
    "test_tokenizers.py": "tokenizers",
    "test_parquet.py": "pyarrow",
    "test_logs.py": "wandb",
    "test_lightning.py": "lightning",
}

collect_ignore = [file for file, package in NEEDS.items() if find_spec(package) is None]
