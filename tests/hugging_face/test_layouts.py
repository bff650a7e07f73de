"""How tensors are stored, by hand: what each layout moves where, and that it moves it back."""

from __future__ import annotations

import pytest
import torch

from blockdsl.hugging_face.family import TRANSPOSED, ByHead, Layout, Reordered


def test_by_head() -> None:
    theirs = torch.tensor([[0], [10], [20], [1], [11], [21]])  # q, k, v of the first head, then of the second
    assert ByHead(2, (1, 1, 1)).ours(theirs).flatten().tolist() == [0, 1, 10, 11, 20, 21]


def test_by_groups_of_heads() -> None:
    theirs = torch.tensor([0, 1, 10, 20, 2, 3, 11, 21])  # two queries to a key and a value
    assert ByHead(2, (2, 1, 1)).ours(theirs).tolist() == [0, 1, 2, 3, 10, 11, 20, 21]


def test_a_kernel_as_a_matrix() -> None:
    kernel, image = torch.randn(5, 3, 2, 2), torch.randn(1, 3, 2, 2)
    matrix = Reordered((5, 3, 2, 2), (0, 2, 3, 1)).ours(kernel).reshape(5, 12)
    pixels = image.permute(0, 2, 3, 1).flatten()  # row by row, channels last
    assert torch.allclose(matrix @ pixels, torch.nn.functional.conv2d(image, kernel).flatten(), atol=1e-6)


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (Layout(), (3, 2)),
        (TRANSPOSED, (3, 2)),
        (TRANSPOSED, (3,)),
        (ByHead(2, (3, 1, 1)), (10, 4)),
        (ByHead(2, (3, 1, 1)), (10,)),
        (Reordered((5, 3, 2, 2), (0, 2, 3, 1)), (5, 3, 2, 2)),
        (Reordered((1, 1, 4)), (1, 1, 4)),
    ],
)
def test_what_is_moved_is_moved_back(layout: Layout, shape: tuple[int, ...]) -> None:
    theirs = torch.randn(shape)
    assert torch.equal(layout.theirs(layout.ours(theirs).contiguous()), theirs)
    if len(shape) == 1:
        assert layout.theirs(layout.ours(theirs)).shape == shape  # as a bias
