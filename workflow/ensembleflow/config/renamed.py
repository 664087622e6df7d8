"""The names that keys of the config had in earlier versions."""

from __future__ import annotations

__all__ = ["RENAMED"]

RENAMED: dict[tuple[str, ...], tuple[str, ...]] = {
    ("selection", "weights"): ("selection", "cost_weights"),
    ("selection", "certificate_nodes"): ("selection", "branch_and_bound_nodes"),
}
"""The present path of each key by its former one. The values mean what they meant."""
