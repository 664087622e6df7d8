"""Where a study's trials are kept: a journal file, a database, or a proxy in front of either."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

__all__ = ["journal_path", "open_journal", "open_storage"]

logger = logging.getLogger("ensembleflow.search")


def journal_path(search_dir: str | Path) -> Path:
    """The journal beside the search's outputs: `{study}/search/study.journal`.

    Not an output itself: Snakemake deletes outputs before a job runs.
    """
    # Absolute, and opened with the open-file lock: the default lock never recovers from a killed writer.
    return Path(search_dir).resolve() / "study.journal"


def open_storage(search_dir: str | Path, url: str | None = None) -> BaseStorage:
    """The storage that the config's `search.storage` names.

    Args:
        search_dir: `{study}/search`, where the journal lies.
        url: `postgresql://…`, `mysql://…` or `grpc://host:port`; None is the journal.

    Raises:
        SearchError: the database or proxy cannot be reached or used as it is. Its message has no password.
    """
    if url is None:
        return open_journal(journal_path(search_dir))
    from ensembleflow.search.remote_storage import open_remote_storage

    return open_remote_storage(url)


def open_journal(path: Path) -> BaseStorage:
    """The journal file `path`, made with its folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileOpenLock(str(path))
    _drop_torn_line(path, lock)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _drop_torn_line(path: Path, lock: JournalFileOpenLock) -> None:
    """Cut off a last line that a full disk or a power cut left unfinished; the next one would be glued to it."""
    if _ends_whole(path):
        return
    lock.acquire()  # it may be a line that is just being written
    try:
        if not _ends_whole(path):
            with open(path, "rb+") as file:
                file.truncate(file.read().rfind(b"\n") + 1)
            logger.warning("%s ended in an unfinished line, which was dropped", path)
    finally:
        lock.release()


def _ends_whole(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return True
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
