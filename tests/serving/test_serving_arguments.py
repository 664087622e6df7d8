"""Public functions of serving, called with something of another kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ensembleflow.errors import ArgumentError, EnsembleflowError
from ensembleflow.serving import open_bundle, read_images

SHAPE = (8, 8, 1)


@pytest.mark.parametrize("path", [None, 7, 1.5, b"bundle", ["bundle"], {"path": "bundle"}, "bundle\0"])
def test_a_bundle_is_opened_by_a_path(path: Any) -> None:
    with pytest.raises(ArgumentError, match=r"path, text or pathlib\.Path"):
        open_bundle(path)


@pytest.mark.parametrize("paths", [None, 7, b"a.png", {"a.png": 1}, [None], ["a.png", 3], np.array(3)])
def test_images_are_read_from_paths(paths: Any) -> None:
    with pytest.raises(ArgumentError, match="path"):
        read_images(paths, SHAPE)


@pytest.mark.parametrize("shape", [None, 8, "8x8", (8, 8), (8, 8, 0), (8, 8, 1, 1), (8.0, 8, 1), [8, None, 1]])
def test_images_have_a_shape_of_three_whole_numbers(shape: Any) -> None:
    with pytest.raises(ArgumentError, match="image_shape"):
        read_images([], shape)


def test_a_single_path_is_not_taken_for_its_letters() -> None:
    with pytest.raises(EnsembleflowError, match="1 of 1 files"):
        read_images("missing.png", SHAPE)
