"""One thread for torch: the tests' models are tiny, and threads on a shared machine only wait for one another.

`pytest -m fast` is a little of every area: those of FAST, but for what Hypothesis tries over and over.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=40, print_blob=True)
settings.load_profile("default")

# Modules, or single tests, by where they are under tests/.
FAST = (
    "benchmarks/test_benchmarks.py::test_useful_flops_by_hand",
    "benchmarks/test_benchmarks.py::test_the_report",
    "blocks/test_attention.py",
    "blocks/test_layers.py",
    "blocks/test_positions.py",
    "blocks/test_residual.py",
    "blocks/test_sampling.py",
    "blocks/test_seq2seq.py",
    "blocks/test_vision.py",
    "cli/test_draw.py",
    "clients/test_keywords.py",
    "clients/test_parts.py",
    "clients/test_programs.py",
    "distributed/test_processes.py",
    "docs/test_from_x_transformers.py",
    "edit/test_server.py",
    "draw/test_seed_models.py",
    "editor/test_service.py",
    "examples/test_examples.py::test_is_a_screen_and_says_how_it_is_run",
    "gpu/test_tiny.py::test_what_is_allowed_follows_what_plain_code_is_off",
    "graph/test_compile.py",
    "graph/test_json.py",
    "hugging_face/test_config.py",
    "kernels/test_compat.py::test_no_other_file_names_what_is_private_to_torch",
    "language/test_errors.py",
    "language/test_macros.py",
    "language/test_ordering.py",
    "measure/test_importance.py::test_an_update_of_zero_weights_is_none",
    "parity/test_parity.py",
    "plan/test_mesh.py",
    "process/test_factories.py",
    "properties/test_costs.py",
    "test_architecture.py",
    "test_seed_document.py",
    "train/test_checkpoint.py",
    "train/test_data.py",
    "train/test_metrics.py",
    "wiring/test_words.py",
    "zoo/test_zoo.py",
)


# Single tests that take long begin first, so that no worker is left with one when the others have nothing more.
LONG = (
    "test_signatures.py::test_a_type_checker_knows_them",
    "edit/test_static.py",
    "kernels/test_compat.py",
    "test_compatibility.py::test_a_pair_trains_or_is_refused_for_the_reason_that_the_page_gives",
    "gpu/test_tiny.py::test_checks_that_fail_leave_the_others_alone",
    "train/test_kill.py",
)


def place_of(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).as_posix() + "::" + item.name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not place_of(item).startswith(LONG))
    for item in items:
        place = place_of(item)
        tried_often = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if place.startswith(FAST) and not tried_often:
            item.add_marker(pytest.mark.fast)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
    torch.default_generator.manual_seed(0)


@pytest.fixture
def untraced() -> Iterator[None]:
    """For tests that would notice something quadratic by the clock: coverage, which slows all code, is off meanwhile."""
    trace = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(trace)
