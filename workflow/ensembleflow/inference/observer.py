"""What happens in a running ensemble, for whoever counts it."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Observer"]


class Observer:
    """Is called with what happens in a dispatcher, in its event loop; does nothing by itself."""

    def batch_finished(self, n_images: int, n_requests: int, seconds: float) -> None:
        """Every member has answered a batch, or failed."""

    def member_answered(self, model: str, n_images: int, seconds: float) -> None:
        """A member has predicted images of a batch."""

    def member_failed(self, model: str, reason: str) -> None:
        """A member's process has ended by itself."""

    def cascade_answered(self, n_seen: Mapping[str, int]) -> None:
        """Images of a cascade were answered: how many of them each member has seen, the first one all."""
