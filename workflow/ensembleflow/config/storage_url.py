"""URLs of Optuna's storage: which are taken, and how to show one without its password."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["PROXY_PORT", "STORAGE_SCHEMES", "check_storage_url", "without_password", "without_passwords"]

PROXY_PORT = 13000  # Optuna's own default
STORAGE_SCHEMES = ("postgresql", "postgresql+psycopg", "mysql", "mysql+pymysql", "grpc")

# Up to the last @, so that a password which should have been percent-encoded is hidden whole.
_USER_PASSWORD = re.compile(r"(?P<before>\w[\w+.-]*://[^:@/?#]*):.*@", re.DOTALL)
_QUERY_PASSWORD = re.compile(r"(?P<before>[?&][^=&]*(?:pass|secret|token)[^=&]*)=[^&]*", re.IGNORECASE)


def check_storage_url(url: str) -> str:
    """Refuse a URL that no storage takes.

    Raises:
        ValueError: its scheme is not one of `STORAGE_SCHEMES`.
    """
    scheme, separator, rest = url.partition("://")
    if scheme.startswith("sqlite"):
        raise ValueError(
            "must be null or the URL of a server: SQLite's locks fail on the network file systems that jobs share"
        )
    if not separator or not rest or scheme not in STORAGE_SCHEMES:
        known = ", ".join(f"`{name}://…`" for name in STORAGE_SCHEMES)
        raise ValueError(f"must be null (a journal file) or one of {known}")
    return url


def without_password(text: str) -> str:
    """A URL with `***` in its password's place; any other text as it is."""
    return _QUERY_PASSWORD.sub(r"\g<before>=***", _USER_PASSWORD.sub(r"\g<before>:***@", text))


def without_passwords(values: Any) -> Any:
    """The same for every text in nested lists and mappings, keys included."""
    if isinstance(values, str):
        return without_password(values)
    if isinstance(values, Mapping):
        return {without_passwords(key): without_passwords(value) for key, value in values.items()}
    return [without_passwords(value) for value in values] if isinstance(values, list | tuple) else values
