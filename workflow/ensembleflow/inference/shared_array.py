"""Arrays that several processes see, with no name that could be left behind."""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np
import numpy.typing as npt

__all__ = ["SharedArray"]


class SharedArray:
    """Zeroed memory shared with the child processes that inherit its file descriptor.

    Not `multiprocessing.shared_memory`: such a block has a name in /dev/shm, where it stays if all processes
    are killed at once, and where containers allow 64 MB. Anonymous memory goes with its last process,
    however that ends, and only the pages that are written to are ever taken.

    Attributes:
        fd: the file descriptor to pass on.
        array: the memory as an array.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        n_bytes = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        self.fd = _anonymous_file()
        try:
            os.ftruncate(self.fd, n_bytes)
            self.array: np.ndarray = np.ndarray(shape, dtype, buffer=mmap.mmap(self.fd, n_bytes))
        except BaseException:
            os.close(self.fd)
            raise

    def close(self) -> None:
        """Give the memory back once no process uses it any more."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            del self.array


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ensembleflow")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
