"""A lease on a slot: only one live process works on it.

Needed because Snakemake, killed and started again, submits a job whose first copy still runs.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from ensembleflow.errors import SearchError
from ensembleflow.search.process_start import started_after_boot

__all__ = ["Lease"]

logger = logging.getLogger("ensembleflow.search")

_SECONDS_BEFORE_WARNING = 5.0
_HOLDER_KEYS = {"host", "pid", "started_after_boot", "token"}


class Lease:
    """A context manager that waits until no other live process holds the file `path`, then holds it.

    A holder on this machine is alive while its process is; one on another machine while it renews the
    file's time. A dead holder's lease is taken over.

    Args:
        path: the lease's file; its folder must be shared by all holders.
        renew_seconds: a holder touches the file this often.
        expire_seconds: a holder on another machine that has not renewed for so long is dead.
        poll_seconds: how often a waiting process looks again.
        wait: wait for a live holder; otherwise enter without the lease, and `held` is false.

    Attributes:
        held: whether this process has entered with the lease.
    """

    def __init__(
        self,
        path: str | Path,
        renew_seconds: float = 5.0,
        expire_seconds: float = 60.0,
        poll_seconds: float = 0.5,
        wait: bool = True,
    ) -> None:
        self.path = Path(path)
        self.renew_seconds = renew_seconds
        self.expire_seconds = expire_seconds
        self.poll_seconds = poll_seconds
        self.wait = wait
        self.held = False
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def taken(self) -> bool:
        """Whether a live process holds the lease, this one included."""
        try:
            return self.path.exists() and self._alive(self._read(self.path))
        except PermissionError:  # somebody else's results: whether it is renewed cannot be seen
            return True

    def __enter__(self) -> Lease:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        started_at, warned = time.monotonic(), False
        while not self._try_create():
            holder = self._read(self.path)
            if not self._alive(holder):
                self._remove(holder)
                continue
            if not self.wait:
                return self
            if holder is not None and not warned and time.monotonic() - started_at > _SECONDS_BEFORE_WARNING:
                logger.warning(
                    "%s is held by process %s on %s: waiting for it to end",
                    self.path.name,
                    holder["pid"],
                    holder["host"],
                )
                warned = True
            time.sleep(self.poll_seconds)
        self.held = True
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._is_mine():
            self.path.unlink(missing_ok=True)
        self.held = False

    def check(self) -> None:
        """Assure that the lease is still this process's.

        Raises:
            SearchError: another process took it over, having found this one dead (a suspended machine).
        """
        if not self._is_mine():
            raise SearchError(
                "another process took over this job's slot while this one was not answering",
                where=self.path,
                hint="nothing is lost: the other process finishes the trial",
            )

    def _try_create(self) -> bool:
        aside = self.path.with_name(f".{self.path.name}.{self._token}")
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started_after_boot": started_after_boot(os.getpid()),
            "token": self._token,
        }
        with open(aside, "w", encoding="utf-8") as file:
            json.dump(holder, file)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, self.path)  # atomic on every file system, network ones included
        except FileExistsError:
            return self._is_mine()  # NFS: a link that was asked for again, its first answer being lost
        finally:
            aside.unlink(missing_ok=True)
        return True

    def _is_mine(self) -> bool:
        holder = self._read(self.path)
        return holder is not None and holder["token"] == self._token

    @staticmethod
    def _read(path: Path) -> dict[str, Any] | None:
        """Who holds the lease; None when nobody does, or when a power cut has emptied the file."""
        try:
            holder = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return holder if isinstance(holder, dict) and holder.keys() >= _HOLDER_KEYS else None

    def _alive(self, holder: dict[str, Any] | None) -> bool:
        if holder is not None and holder["host"] == socket.gethostname():
            try:
                process = psutil.Process(holder["pid"])
                same = started_after_boot(process.pid) == holder["started_after_boot"]
                return bool(same and process.status() != psutil.STATUS_ZOMBIE)
            except psutil.NoSuchProcess:
                return False
        try:
            # Compare two times of the file server, so that the machines' clocks do not matter.
            probe = self.path.with_name(f".{self.path.name}.{self._token}.now")
            probe.touch()
            now = probe.stat().st_mtime
            probe.unlink(missing_ok=True)
            return now - self.path.stat().st_mtime < self.expire_seconds
        except FileNotFoundError:
            return True

    def _remove(self, dead: dict[str, Any] | None) -> None:
        """Remove a dead holder's lease, unless another process has just taken it over."""
        aside = self.path.with_name(f".{self.path.name}.{self._token}.dead")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        moved = self._read(aside)
        if moved != dead:
            with suppress(FileExistsError):  # then its holder learns of it by `check`
                os.link(aside, self.path)
        elif dead is not None:
            logger.info("took over %s from dead process %s on %s", self.path.name, dead["pid"], dead["host"])
        aside.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._stop.wait(self.renew_seconds):
            try:
                if self._is_mine():
                    os.utime(self.path)
            except OSError:
                logger.warning("the lease %s could not be renewed", self.path.name)
