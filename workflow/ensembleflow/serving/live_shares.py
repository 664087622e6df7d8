"""Which share of a cascade's images each member sees now, and whether that is what it was calibrated for."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

__all__ = ["LiveShares"]

_LOG = logging.getLogger("ensembleflow.serving")

# The last so many images are looked at, in blocks, of which the oldest is left out as a new one begins; and fewer than
# the first are no sample.
_BLOCK_IMAGES, _BLOCKS = 500, 10
# Of an interval that holds the share but one time in a thousand.
_DEVIATIONS = 3.29


class LiveShares:
    """The shares of the last images, for Prometheus, with an alarm where they leave the calibrated interval.

    They leave it where a share's own interval (Wilson's, 99.9 %) of the last 500 to 5,000 images does not meet the
    calibrated one. Images of another kind then come than those that the cascade was calibrated with: they cost more or
    less, and its promise no longer holds.

    Args:
        intervals: the calibrated interval of each member's share, in the order in which they answer; the first one
            sees all images.
    """

    def __init__(self, intervals: Mapping[str, tuple[float, float]]) -> None:
        self._intervals = dict(list(intervals.items())[1:])
        self._first = next(iter(intervals))
        self._total = dict.fromkeys(intervals, 0)
        self._blocks: deque[dict[str, int]] = deque([dict.fromkeys(intervals, 0)], maxlen=_BLOCKS)
        self._shifted = False

    def add(self, n_seen: Mapping[str, int]) -> None:
        """Count images that were answered: how many of them each member has seen."""
        if self._blocks[-1][self._first] >= _BLOCK_IMAGES:
            self._judge()
            self._blocks.append(dict.fromkeys(self._total, 0))
        for model, count in n_seen.items():
            self._total[model] += count
            self._blocks[-1][model] += count

    @property
    def shifted(self) -> bool:
        """Whether a share is outside of what was calibrated."""
        n_images = sum(block[self._first] for block in self._blocks)
        return n_images >= _BLOCK_IMAGES and any(
            _apart(_wilson(sum(block[model] for block in self._blocks), n_images), interval)
            for model, interval in self._intervals.items()
        )

    def collect(self) -> Iterable[Metric]:
        """What Prometheus asks for."""
        seen = CounterMetricFamily(
            "ensembleflow_cascade_images", "images that a member of the cascade has seen", labels=["model"]
        )
        live = GaugeMetricFamily(
            "ensembleflow_cascade_share", "the share of the last images that a member has seen", labels=["model"]
        )
        low = GaugeMetricFamily(
            "ensembleflow_cascade_share_calibrated_low", "the least that was calibrated", labels=["model"]
        )
        high = GaugeMetricFamily(
            "ensembleflow_cascade_share_calibrated_high", "the most that was calibrated", labels=["model"]
        )
        n_images = sum(block[self._first] for block in self._blocks)
        for model, count in self._total.items():
            seen.add_metric([model], count)
        for model, (lowest, highest) in self._intervals.items():
            if n_images:
                live.add_metric([model], sum(block[model] for block in self._blocks) / n_images)
            low.add_metric([model], lowest)
            high.add_metric([model], highest)
        alarm = GaugeMetricFamily(
            "ensembleflow_cascade_shifted",
            "1 if a share has left what was calibrated: images of another kind come",
            value=float(self.shifted),
        )
        yield from (seen, live, low, high, alarm)

    def _judge(self) -> None:
        shifted = self.shifted
        if shifted and not self._shifted:
            _LOG.warning(
                "images of another kind come than the cascade was calibrated with: its members see other shares of "
                "them (see ensembleflow_cascade_share)"
            )
        self._shifted = shifted


def _wilson(n_found: int, n_images: int) -> tuple[float, float]:
    share, squared = n_found / n_images, _DEVIATIONS**2
    centre = (share + squared / (2 * n_images)) / (1 + squared / n_images)
    variance = share * (1 - share) / n_images + squared / (4 * n_images**2)
    reach = _DEVIATIONS * math.sqrt(variance) / (1 + squared / n_images)
    return centre - reach, centre + reach


def _apart(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] > other[1] or one[1] < other[0]
