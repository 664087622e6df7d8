"""Reading artefacts: a missing, truncated or foreign file is named, with how to make it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensembleflow.errors import ArtefactError
from ensembleflow.io.snakemake_command import snakemake_command

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["file_sha256", "read_csv", "read_json", "remake_hint"]


def remake_hint(path: str | Path) -> str:
    """How to have Snakemake make an artefact again."""
    return f"if the workflow made this file, have it made again: {snakemake_command('--force', path, near=path)}"


def read_json(path: str | Path, expected_keys: Sequence[str] = ()) -> Any:
    """Read a JSON artefact.

    Raises:
        ArtefactError: it is missing, truncated, or lacks one of `expected_keys`.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtefactError("an artefact is missing", where=path, hint=remake_hint(path)) from None
    except (OSError, ValueError) as error:
        raise ArtefactError(
            "an artefact is truncated or damaged", where=path, found=error, expected="JSON", hint=remake_hint(path)
        ) from None
    missing = [key for key in expected_keys if not isinstance(value, dict) or key not in value]
    if missing:
        raise ArtefactError("an artefact lacks keys", where=path, expected=", ".join(missing), hint=remake_hint(path))
    return value


def read_csv(path: str | Path, expected_columns: Sequence[str] = (), **options: Any) -> pd.DataFrame:
    """Read a CSV artefact; `options` go to `pandas.read_csv`.

    Raises:
        ArtefactError: it is missing, empty, or lacks one of `expected_columns`.
    """
    import pandas as pd  # takes half a second, which a search job need not spend

    try:
        table = pd.read_csv(path, **options)
    except FileNotFoundError:
        raise ArtefactError("an artefact is missing", where=path, hint=remake_hint(path)) from None
    except (OSError, ValueError) as error:
        raise ArtefactError(
            "an artefact is truncated or damaged",
            where=path,
            found=error,
            expected="a CSV table",
            hint=remake_hint(path),
        ) from None
    missing = [column for column in expected_columns if column not in table.columns]
    if missing:
        raise ArtefactError(
            "a table lacks columns",
            where=path,
            found=", ".join(map(str, table.columns)),
            expected=", ".join(missing),
            hint=remake_hint(path),
        )
    return table


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
