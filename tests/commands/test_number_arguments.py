"""What the options of the commands take for a number."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from ensembleflow.commands.number_arguments import number, positive_number, whole_number


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (whole_number(1), "1", 1),
        (whole_number(1), "0012", 12),
        (whole_number(0, 65535), "65535", 65535),
        (number(0), "0", 0.0),
        (number(0), "1e3", 1000.0),
        (number(0, 10), "10", 10.0),
        (positive_number, "0.001", 0.001),
    ],
)
def test_a_number_within_the_range_is_taken(parse: Callable[[str], float], text: str, value: float) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (whole_number(1), "0", "0 is not a whole number of 1 or more"),
        (whole_number(1), "-3", "of 1 or more"),
        (whole_number(1), "1.5", "of 1 or more"),
        (whole_number(1), "many", "of 1 or more"),
        (whole_number(1), "٣", "of 1 or more"),
        (whole_number(1), "9" * 10_000, "of 1 or more"),
        (whole_number(0, 65535), "65536", "from 0 to 65535"),
        (number(0), "-1", "-1 is not a number of 0 or more"),
        (number(0), "inf", "of 0 or more"),
        (number(0), "nan", "of 0 or more"),
        (number(0), "soon", "of 0 or more"),
        (number(0.001, 1_000_000), "0", "from 0.001 to 1000000"),
        (positive_number, "0", "0 is not a number above 0"),
        (positive_number, "inf", "above 0"),
    ],
)
def test_any_other_text_is_refused_with_the_range(parse: Callable[[str], float], text: str, expected: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=expected):
        parse(text)
