"""A study's name, and the dataset, algorithm and seed that it is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["STUDY_PATTERN", "StudyName"]

_DATASET, _ALGORITHM, _SEED = "[A-Za-z0-9_]+", "[a-z]+", "[0-9]+"

STUDY_PATTERN = f"{_DATASET}-{_ALGORITHM}-s{_SEED}"
"""The regular expression of all names."""


@dataclass(frozen=True)
class StudyName:
    """What a study is called, `{dataset}-{algorithm}-s{seed}`: its folder below the results has this name.

    Attributes:
        dataset: the dataset's name.
        algorithm: of the search.
        seed: of the study.
    """

    dataset: str
    algorithm: str
    seed: int

    def __str__(self) -> str:
        return f"{self.dataset}-{self.algorithm}-s{self.seed}"

    @classmethod
    def parse(cls, text: str) -> StudyName | None:
        """The parts of a name, or None where `text` is no study's name."""
        match = re.fullmatch(f"({_DATASET})-({_ALGORITHM})-s({_SEED})", text)
        return cls(match[1], match[2], int(match[3])) if match else None
