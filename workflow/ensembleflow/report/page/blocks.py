"""What a section of the page is made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ensembleflow.errors import EnsembleflowError

__all__ = [
    "Block",
    "Choice",
    "Choices",
    "Drawing",
    "Fact",
    "Facts",
    "Gallery",
    "Missing",
    "Mistake",
    "Section",
    "Table",
    "Text",
    "guarded",
    "rows_of",
]

MAX_ROWS = 200
_LONG_LETTERS = 36


@dataclass(frozen=True)
class Fact:
    """One number to read at a glance: its name, its value with the unit, and how it is meant."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """Numbers side by side."""

    facts: Sequence[Fact]
    kind: str = "facts"


@dataclass(frozen=True)
class Text:
    """A paragraph, `strong` before it; `verbatim` text is folded away and keeps its lines."""

    text: str
    strong: str = ""
    verbatim: bool = False
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """A table of text.

    Args:
        caption: its title.
        columns: headings, with units.
        rows: cells; at most `MAX_ROWS` of them are shown.
        sources: paths below the study's folder of the data behind it.
        budget: shown only while this budget, or one of several separated by blanks, is chosen.
        folded: shown when asked for.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    sources: Sequence[str] = ()
    budget: str | None = None
    folded: bool = False
    kind: str = "table"

    @property
    def shown(self) -> Sequence[Sequence[str]]:
        """The rows that the page holds."""
        return self.rows[:MAX_ROWS]

    @property
    def kinds(self) -> list[str]:
        """How each column is set: a `number` to the right, `long` text wide, other `text` as it comes."""
        return [_kind(column) for column in zip(*self.rows, strict=True)] or ["text"] * len(self.columns)


@dataclass(frozen=True)
class Drawing:
    """A figure: one plot or several side by side, what it shows in words, and its data as a table.

    Args:
        key: the figure's name in the page's addresses.
        title: what it is.
        description: what there is to see, in words that do without seeing it.
        plots: each a subtitle (or none) and its plot. A trace whose `meta` names a budget, or several separated by
            blanks, is drawn only while one of them is chosen; one whose `customdata` are budgets chooses them when
            clicked.
        table: its data.
        min_width: pixels below which it scrolls sideways instead of shrinking.
        by_budget: a control to choose the budget stands above it.
    """

    key: str
    title: str
    description: str
    plots: Sequence[tuple[str, go.Figure]]
    table: Table
    min_width: int = 0
    by_budget: bool = False
    kind: str = "drawing"


@dataclass(frozen=True)
class Mistake:
    """A test image that was answered wrongly: its picture's address (None where there is none) and the votes.

    A vote is a member, its class and its probability of it.
    """

    picture: str | None
    image: int
    label: str
    predicted: str
    confidence: str
    label_probability: str
    votes: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Gallery:
    """Pictures with the votes on them, shown only while one of the budgets (separated by blanks) is chosen."""

    title: str
    intro: str
    items: Sequence[Mistake]
    sources: Sequence[str]
    budget: str
    kind: str = "gallery"


@dataclass(frozen=True)
class Choice:
    """What one budget buys; the recommended one is shown first."""

    budget: str
    title: str
    summary: str
    facts: Sequence[Fact]
    tables: Sequence[Table]
    notes: Sequence[str]
    commands: Sequence[tuple[str, str]]
    missing: Sequence[Missing] = ()
    recommended: bool = False


@dataclass(frozen=True)
class Choices:
    """The panel of the decision: one choice is shown at a time."""

    choices: Sequence[Choice]
    kind: str = "choices"


@dataclass(frozen=True)
class Missing:
    """What could not be shown: an error's parts."""

    what: str
    where: str | None
    found: str | None
    expected: str | None
    hint: str | None
    kind: str = "missing"

    @classmethod
    def of(cls, error: EnsembleflowError) -> Missing:
        """What an error tells."""
        return cls(error.what, error.where, error.found, error.expected, error.hint)


Block = Facts | Text | Table | Drawing | Choices | Gallery | Missing


@dataclass(frozen=True)
class Section:
    """A part of the page under one heading."""

    key: str
    title: str
    intro: str
    blocks: list[Block] = field(default_factory=list)


def guarded(*builders: Callable[[Any], Iterable[Block]], study: Any) -> list[Block]:
    """The blocks of all builders; one that cannot be built is replaced by what it lacks.

    What several of them lack is told once.
    """
    blocks: list[Block] = []
    for build in builders:
        try:
            blocks += build(study)
        except EnsembleflowError as error:
            missing = Missing.of(error)
            if missing not in blocks:
                blocks.append(missing)
    return blocks


def rows_of(table: pd.DataFrame) -> Iterator[Any]:
    """A table's rows, each a tuple with the columns' names."""
    yield from table.itertuples(index=False)


_NUMBER = re.compile(r"[-−]?[\d,.]+(e[-+]\d+)?(\s(ms|s|min|h|%))?|–?")


def _kind(column: Sequence[str]) -> str:
    if any(column) and all(_NUMBER.fullmatch(text) for text in column):
        return "number"
    return "long" if max(map(len, column)) > _LONG_LETTERS else "text"
