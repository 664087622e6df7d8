"""Every number of the items' tables under a name of its own, and whether a page quotes them rightly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

import pandas as pd

import ensembleflow
from ensembleflow.config import canonical_json
from ensembleflow.io import read_csv, write_json
from ensembleflow.planning.paper_plan import ITEMS, PaperRun

__all__ = ["KEYS", "collect_numbers", "make_numbers", "wrong_quotes"]

KEYS = {
    "table_1": ("source", "algorithm", "trials", "workers"),
    "table_2": ("data", "source", "budget", "algorithm"),
    "figure_3": ("study", "budget", "snapshot"),
    "pruning": ("study", "keep_fraction"),
    "figure_5": ("method", "members"),
    "smobf": ("study", "budget"),
    "combiners": ("study", "budget"),
    "table_3": ("ensemble", "source", "devices"),
    "table_4": ("source", "method", "minutes"),
    "claims": ("name",),
}
"""The columns that tell an item's rows apart."""

_QUOTE = re.compile(r"(?P<text>[-+−]?[\d,]*\d(?:\.\d+)?)\s?%?<!--\s*=\s*(?P<name>[^>]*?)\s*-->")


def make_numbers(run: PaperRun) -> None:
    """Write `numbers.json`: `numbers` by name, and the `run` that they are of.

    Raises:
        ArtefactError: an item's table is missing or damaged.
        StorageError: it cannot be written.
    """
    numbers: dict[str, float | int] = {}
    for item in ITEMS:
        numbers |= collect_numbers(item, read_csv(run.output(item, "csv"), dtype=dict.fromkeys(KEYS[item], str)))
    made = {"ensembleflow": ensembleflow.__version__, "run": canonical_json(run), "numbers": numbers}
    write_json(run.output("numbers", "json"), made)


def collect_numbers(item: str, table: pd.DataFrame) -> dict[str, float | int]:
    """A table's numbers by name: `{item}/{what tells the row}/{column}`, such as `table_2/digits/ours/4x/tpe/error`.

    Args:
        item: its name.
        table: the columns that tell its rows as text.

    Raises:
        ValueError: two rows have the same name.
    """
    keys = KEYS[item]
    numbers: dict[str, float | int] = {}
    for row in table.to_dict("records"):
        head = "/".join([item, *(str(row[key]) for key in keys)])
        for column, value in row.items():
            if column in keys or isinstance(value, str | bool) or pd.isna(value):
                continue
            if (name := f"{head}/{column}") in numbers:
                raise ValueError(f"two rows of {item} have the name {head}")
            numbers[name] = value
    return numbers


def wrong_quotes(markdown: str, numbers: Mapping[str, float | int]) -> list[str]:
    """Which of a page's quotes differ from the numbers; a quote is `2.23<!-- =table_2/digits/ours/4x/tpe/error -->`.

    A quote is right where the number, rounded to as many digits, is what stands there.

    Args:
        markdown: the page.
        numbers: by name.

    Returns:
        A sentence for each wrong quote.
    """
    wrong = []
    for quote in _QUOTE.finditer(markdown):
        name, text = quote["name"], quote["text"].replace(",", "").replace("−", "-")
        if name not in numbers:
            wrong.append(f"{quote['text']} quotes {name}, which is no number of this run")
        elif round(Decimal(str(numbers[name])), -int(Decimal(text).as_tuple().exponent)) != Decimal(text):
            wrong.append(f"{quote['text']} quotes {name}, which is {numbers[name]}")
    if (n_marks := len(re.findall(r"<!--\s*=", markdown))) != (n_read := len(list(_QUOTE.finditer(markdown)))):
        wrong.append(f"{n_marks - n_read} quotes have no number before them")
    return wrong
