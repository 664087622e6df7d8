"""A storage behind a network whose operations are tried again while its server is away."""

from __future__ import annotations

import logging
import random
import time
from abc import ABCMeta
from collections.abc import Callable
from typing import Any

import grpc
import optuna
from optuna.storages import BaseStorage
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ensembleflow.config.storage_url import without_password
from ensembleflow.errors import SearchError

__all__ = ["RetryingStorage"]

logger = logging.getLogger("ensembleflow.search")


def _delegate(operation: str) -> Callable[..., Any]:
    def call(self: RetryingStorage, *args: Any, **kwargs: Any) -> Any:
        return self.repeat(operation, *args, **kwargs)

    return call


_Delegating: Any = ABCMeta(
    "_Delegating", (BaseStorage,), {name: _delegate(name) for name in dir(BaseStorage) if not name.startswith("_")}
)


class RetryingStorage(_Delegating):
    """Repeats each operation that fails because the server is away, or because two operations blocked each other.

    Making a trial is not repeated: nobody knows whether the first try made one.

    Args:
        storage: what to ask.
        where: the server in words, for messages.
        patience_seconds: how long to go on trying before raising SearchError.
    """

    def __init__(self, storage: BaseStorage, where: str, patience_seconds: float = 60.0) -> None:
        self._storage = storage
        self._where = where
        self._patience_seconds = patience_seconds

    def repeat(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        """Call the storage's `operation`, again if need be.

        Raises:
            SearchError: the server stayed away, or failed in a way that repeating does not mend.
        """
        patience = 0.0 if operation == "create_new_trial" else self._patience_seconds
        give_up_at = time.monotonic() + patience
        repeated, pause = False, 0.1
        while True:
            try:
                return getattr(self._storage, operation)(*args, **kwargs)
            except optuna.exceptions.UpdateFinishedTrialError:
                if not repeated:
                    raise
                return True  # the first try had reached the storage, only its answer had not come back
            except (grpc.RpcError, SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
                if not _may_pass(error) or time.monotonic() + pause > give_up_at:
                    raise SearchError(
                        "the storage failed",
                        where=self._where,
                        found=_reason(error),
                        hint="run the same command again when it answers: finished epochs are kept",
                    ) from None
                if not repeated:
                    logger.warning("the storage at %s fails (%s): trying again", self._where, _reason(error))
                repeated = True
                time.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(2 * pause, 5.0)


def _may_pass(error: Exception) -> bool:
    """Whether an operation that failed so may succeed when it is repeated."""
    if isinstance(error, grpc.RpcError):
        return bool(error.code() == grpc.StatusCode.UNAVAILABLE)
    cause = _cause(error)
    if isinstance(cause, DBAPIError):
        # A lost connection, a deadlock, a failed serialisation; not data or a statement that is wrong.
        lost = type(cause).__name__ in ("OperationalError", "InterfaceError", "InternalError")
        return lost or cause.connection_invalidated
    return isinstance(cause, SQLAlchemyError)


def _cause(error: Exception) -> BaseException:
    return error.__cause__ or error if isinstance(error, optuna.exceptions.StorageInternalError) else error


def _reason(error: Exception) -> str:
    cause: Any = _cause(error)
    cause = getattr(cause, "orig", None) or cause
    text = cause.details() if isinstance(cause, grpc.RpcError) else str(cause)
    return without_password(" ".join((text or type(cause).__name__).split()))
