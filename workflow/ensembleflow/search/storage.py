"""Where a study's trials are kept: a journal file, a database, or a proxy in front of either."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from ensembleflow.errors import SearchError, StorageError

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
        SearchError: the database or proxy cannot be reached or used as it is, or the journal is damaged. Its message
            has no password.
        StorageError: the journal cannot be made or read.
    """
    if url is None:
        return open_journal(journal_path(search_dir))
    from ensembleflow.search.remote_storage import open_remote_storage

    return open_remote_storage(url)


def open_journal(path: Path) -> BaseStorage:
    """The journal file `path`, made with its folder where it is missing.

    Raises:
        SearchError: it holds something else than Optuna's lines.
        StorageError: it cannot be made or read.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_MendingLock(path)))
    except OSError as error:
        raise StorageError(
            "the journal cannot be opened",
            where=path,
            found=error.strerror,
            expected="a file, in a folder that can be written",
            hint="free some space or mend the permissions, then run the same command again",
        ) from None
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        raise SearchError(
            "the journal is damaged",
            where=path,
            found=f"a line that Optuna cannot read ({getattr(error, 'msg', error)})",
            hint="move it away when no search job runs: the next job adds all finished trials to a new one, and those "
            "that have begun go on from their checkpoints",
        ) from None


class _MendingLock(JournalFileOpenLock):
    """The journal's lock, held only over whole lines.

    A last line that a full disk, a kill or a power cut left unfinished is cut off before anything is appended: the
    next line would be glued to it, and neither could be read.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def acquire(self) -> bool:
        """Wait for the lock, then mend the journal."""
        super().acquire()
        try:
            if not _ends_whole(self._path):
                with open(self._path, "rb+") as file:
                    file.truncate(file.read().rfind(b"\n") + 1)
                logger.warning("%s ended in an unfinished line, which was dropped", self._path)
        except BaseException:
            self.release()
            raise
        return True


def _ends_whole(path: Path) -> bool:
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
