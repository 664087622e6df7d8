"""The errors a user can cause, each with one message that names what, where, expected and a hint."""

from __future__ import annotations

__all__ = [
    "AllocationError",
    "ArgumentError",
    "ArtefactError",
    "BundleError",
    "ConfigError",
    "DatasetError",
    "EngineError",
    "EnsembleflowError",
    "FamilyError",
    "LibraryError",
    "MissingPackageError",
    "SearchError",
    "SelectionError",
    "ServingError",
    "StorageError",
]


class EnsembleflowError(Exception):
    """A user's mistake or a broken file, told in one message without a traceback.

    Args:
        what: what is wrong, as a sentence without the final stop.
        where: the file, and the key or row within it.
        found: what stands there.
        expected: what should stand there.
        hint: what to do about it, usually a command or an edit.
    """

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        found: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.found = None if found is None else str(found)
        self.expected = None if expected is None else str(expected)
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        for label in ("where", "found", "expected", "hint"):
            value = getattr(self, label)
            if value is not None:
                lines.append(f"  {label + ':':<10}{value}")
        return "\n".join(lines)


class ConfigError(EnsembleflowError):
    """The config file has an unknown key, a bad value, or an impossible combination."""


class ArgumentError(EnsembleflowError):
    """A Python function was called with a value that it cannot take."""


class MissingPackageError(EnsembleflowError):
    """A command needs a Python package that this installation was made without."""


class DatasetError(EnsembleflowError):
    """The images or labels cannot be used as they are."""


class ArtefactError(EnsembleflowError):
    """An artefact of an earlier stage is missing, truncated or of another schema version."""


class StorageError(EnsembleflowError):
    """A file cannot be written: full disk, missing permission, read-only file system."""


class FamilyError(EnsembleflowError):
    """The file of a family of networks cannot be used, or does not build what it must."""


class SearchError(EnsembleflowError):
    """The search cannot start, or its recorded trials contradict the config."""


class LibraryError(EnsembleflowError):
    """No model is fit to be kept, or a kept model cannot be read."""


class SelectionError(EnsembleflowError):
    """No ensemble satisfies the request."""


class EngineError(EnsembleflowError):
    """An engine is not installed, cannot run a model, or answers otherwise than the exported function."""


class AllocationError(EnsembleflowError):
    """The members fit on no combination of the devices, or a device does not exist."""


class BundleError(EnsembleflowError):
    """A bundle is incomplete, or answers differently from the cached predictions."""


class ServingError(EnsembleflowError):
    """A running ensemble cannot answer a request now; the same request may succeed later."""
