"""TensorFlow, set up once as a job would."""

from __future__ import annotations

import pytest

from ensembleflow.models import configure_tensorflow


@pytest.fixture(scope="session", autouse=True)
def tensorflow() -> None:
    configure_tensorflow(threads=1, training=True)
