"""Tests against `transformers` run where it is installed, in the environment of the extra `zoo-test`; others anywhere."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

ANYWHERE = {
    "test_published_gpts.py",
    "test_config.py",
    "test_published.py",
    "test_published_pairs.py",
    "test_published_norms.py",
    "test_files.py",
    "test_layouts.py",
    "test_rows.py",
    "test_zoo.py",
}

if find_spec("transformers") is None:
    collect_ignore = [path.name for path in Path(__file__).parent.glob("test_*.py") if path.name not in ANYWHERE]
elif find_spec("rxnmapper") is None:  # published weights, which the environment may have
    collect_ignore = ["test_rxnmapper.py"]
