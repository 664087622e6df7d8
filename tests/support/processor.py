"""What this machine's processor can do."""

from __future__ import annotations

import openvino


def has_bfloat16() -> bool:
    """Whether OpenVINO computes in bfloat16 here."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
