"""One study belongs to one project folder: leases and checkpoints lie there, and no other folder sees them."""

from __future__ import annotations

import os
import socket
import uuid
from contextlib import suppress
from pathlib import Path

import optuna

from ensembleflow.errors import SearchError

__all__ = ["claim_study"]

_STORE_KEY = "ensembleflow:store"


def claim_study(study: optuna.Study, store_dir: Path) -> None:
    """Note in the study which folder its trials lie in, or find it noted.

    The folder carries its name in a file, so it may be moved.

    Args:
        study: the study.
        store_dir: where the trials' leases, records and weights lie.

    Raises:
        SearchError: the trials of this study lie in another folder, or in one that is lost.
    """
    ours = _name_of(store_dir)
    if _STORE_KEY not in study.user_attrs:
        study.set_user_attr(_STORE_KEY, ours)
    known = study.user_attrs[_STORE_KEY]  # another folder's job may have been just as far
    if known != ours:
        raise SearchError(
            "the storage has this study already, with its trials in another folder",
            where=study.study_name,
            found=known,
            expected=ours,
            hint="two project folders cannot share a study: give this one a database of its own (search.storage), or "
            "another seed. If that folder is lost, restore it, or delete the study (optuna delete-study; without a "
            "database the study.journal) to search anew",
        )


def _name_of(store_dir: Path) -> str:
    """The folder's name for good: a number that no other has, and where it was made."""
    path = store_dir / "name.txt"
    if not path.exists():
        store_dir.mkdir(parents=True, exist_ok=True)
        number = uuid.uuid4().hex
        aside = store_dir / f".name-{number}"
        with open(aside, "w", encoding="utf-8") as file:
            file.write(f"{number}, made in {socket.gethostname()}:{store_dir.resolve()}\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # of processes that start together one names it, as with a lease
            os.link(aside, path)
        aside.unlink()
    return path.read_text(encoding="utf-8").strip()
