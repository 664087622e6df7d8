"""How kernels are compiled: kept for the next process where there is a place to keep them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

__all__ = ["compiled"]


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a kernel: compiled by Numba when first called, without the interpreter's lock, and cached on disk.

    Where neither the package's folder, `NUMBA_CACHE_DIR` nor the user's own cache can be written (a read-only
    container, a system user without a home), every process compiles anew.

    Args:
        options: Numba's, such as `fastmath`.
    """

    def decorate(kernel: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, nogil=True, **options)(kernel)
        except RuntimeError:  # Numba's only word for "no folder to write to"
            return njit(nogil=True, **options)(kernel)

    return decorate
