"""Labels beside points, placed so that they cover neither each other nor the data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

__all__ = ["Label", "place_labels"]

_POINT_HALF_SIZE = 3.2
_DISTANCES = (4.5, 8.0, 14.0, 21.0, 30.0, 42.0)
_LEADER_DISTANCE = 12.0
_N_DIRECTIONS = 16
_OUTSIDE, _ON_LABEL, _ON_POINT, _ON_LINE = 1000.0, 100.0, 30.0, 1.5


@dataclass(frozen=True)
class Label:
    """A text that belongs to the point (x, y), both in the units of the axes."""

    x: float
    y: float
    text: str
    color: str
    weight: str = "normal"


@dataclass(frozen=True)
class _Box:
    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: _Box) -> float:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0) / ((self.right - self.left) * (self.top - self.bottom))

    def n_inside(self, points: np.ndarray) -> int:
        x, y = points[:, 0], points[:, 1]
        return int(((x > self.left) & (x < self.right) & (y > self.bottom) & (y < self.top)).sum())


def place_labels(
    axes: Axes, labels: Sequence[Label], points: np.ndarray, lines: Sequence[np.ndarray], font_size: float
) -> None:
    """Write each label at the free place nearest to its point; a thin line leads to one that had to go far.

    Labels are placed one after the other, so the ones that matter most come first. The axes' limits, scales and
    layout must be final.

    Args:
        axes: where the labels are written.
        labels: what is written, in the order of importance.
        points: (points, 2) in data units: markers that labels should not cover.
        lines: each (points, 2) in data units: polylines that labels had better not cover.
        font_size: of the labels, in points.
    """
    per_point = axes.figure.dpi / 72.0  # pixels in a typographic point
    to_pixels = axes.transData.transform
    half = _POINT_HALF_SIZE * per_point
    obstacles = [_Box(x - half, y - half, x + half, y + half) for x, y in to_pixels(points)]
    traces = np.concatenate([_dense(to_pixels(line), 3 * per_point) for line in lines] or [np.empty((0, 2))])
    frame = axes.get_window_extent()
    room = _Box(frame.x0, frame.y0, frame.x1, frame.y1)
    taken: list[_Box] = []
    for label in labels:
        note = axes.annotate(
            label.text,
            (label.x, label.y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=font_size,
            color=label.color,
            weight=label.weight,
            zorder=6,
        )
        note.set_in_layout(False)
        size = note.get_window_extent()
        x, y = to_pixels((label.x, label.y))
        distance, shift, box = min(
            _candidates(x, y, size.width, size.height, per_point),
            key=lambda place: place[0] / 3 + _penalty(place[2], room, taken, obstacles, traces),
        )
        taken.append(box)
        note.set_position((shift[0] / per_point, shift[1] / per_point))
        if distance >= _LEADER_DISTANCE:
            edge = (
                float(np.clip(x, box.left, box.right) - x) / per_point,
                float(np.clip(y, box.bottom, box.top) - y) / per_point,
            )
            arrow = {"arrowstyle": "-", "color": label.color, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2.5}
            leader = axes.annotate(
                "", (label.x, label.y), xytext=edge, textcoords="offset points", arrowprops=arrow, zorder=5
            )
            leader.set_in_layout(False)


def _candidates(
    x: float, y: float, width: float, height: float, per_point: float
) -> list[tuple[float, tuple[float, float], _Box]]:
    places = []
    for distance in _DISTANCES:
        for turn in range(_N_DIRECTIONS):
            # From the upper right on: where a reader looks first.
            angle = math.pi / 4 - 2 * math.pi * turn / _N_DIRECTIONS
            across = math.cos(angle) * (distance * per_point + width / 2)
            up = math.sin(angle) * (distance * per_point + height / 2)
            box = _Box(x + across - width / 2, y + up - height / 2, x + across + width / 2, y + up + height / 2)
            places.append((distance, (across, up), box))
    return places


def _penalty(box: _Box, room: _Box, taken: Sequence[_Box], obstacles: Sequence[_Box], traces: np.ndarray) -> float:
    return (
        _OUTSIDE * (1 - box.overlap(room))
        + _ON_LABEL * sum(box.overlap(other) + 0.05 * (box.overlap(other) > 0) for other in taken)
        + _ON_POINT * sum(box.overlap(other) + 0.05 * (box.overlap(other) > 0) for other in obstacles)
        + _ON_LINE * box.n_inside(traces)
    )


def _dense(line: np.ndarray, step: float) -> np.ndarray:
    """Points along a polyline at most `step` apart."""
    pieces = [line[:1]]
    for start, end in itertools.pairwise(line):
        n_points = max(2, int(np.hypot(*(end - start)) / step) + 1)
        pieces.append(np.linspace(start, end, n_points)[1:])
    return np.concatenate(pieces)
