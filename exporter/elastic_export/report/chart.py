"""Charts as SVG: figures to coordinates, and no more. Colours and type are the page's (`page.html.jinja`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Widths of a chart in its own units; the page scales it to its column.
WIDTH = 720.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 12.0, 10.0, 30.0
_BAR, _GAP, _LABEL = 16.0, 6.0, 150.0


@dataclass(frozen=True)
class Part:
    """A stretch of a bar: what it is, which is also its colour, and how long."""

    kind: str
    size: float


@dataclass(frozen=True)
class Bar:
    """A bar: its name, its parts, what is said at its end, and a mark across it, where there is one."""

    name: str
    parts: tuple[Part, ...]
    text: str
    mark: float | None = None


@dataclass(frozen=True)
class Rect:
    """A part as it is drawn."""

    kind: str
    x: float
    width: float
    title: str


@dataclass(frozen=True)
class DrawnBar:
    """A bar as it is drawn."""

    name: str
    text: str
    y: float
    rects: tuple[Rect, ...]
    end: float
    mark: float | None


@dataclass(frozen=True)
class Bars:
    """Horizontal bars, one below the other, on one scale."""

    bars: tuple[DrawnBar, ...]
    height: float
    kinds: tuple[str, ...]
    width: float = WIDTH
    bar: float = _BAR


def bars_of(bars: Sequence[Bar], *, said: float = 110.0) -> Bars:
    """Lay bars out, the longest (or the farthest mark) over the whole width but for `said`, the room of the texts."""
    longest = max((max(sum(p.size for p in bar.parts), bar.mark or 0.0) for bar in bars), default=0.0) or 1.0
    room = WIDTH - _LABEL - said  # times a share of the longest: room / longest may be infinite
    drawn = []
    for row, bar in enumerate(bars):
        x, rects = _LABEL, []
        for part in bar.parts:
            width = part.size / longest * room
            rects.append(Rect(part.kind, x, width, part.kind))
            x += width
        mark = None if bar.mark is None else _LABEL + bar.mark / longest * room
        drawn.append(DrawnBar(bar.name, bar.text, row * (_BAR + _GAP), tuple(rects), max(x, mark or 0.0), mark))
    kinds = dict.fromkeys(part.kind for bar in bars for part in bar.parts if part.size > 0)
    return Bars(tuple(drawn), len(bars) * (_BAR + _GAP), tuple(kinds))


@dataclass(frozen=True)
class Point:
    """A figure of a layer: its kind is its colour."""

    kind: str
    layer: int
    value: float
    title: str


@dataclass(frozen=True)
class Dot:
    """A point as it is drawn."""

    kind: str
    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Line:
    """A level across the chart, or a tick of an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Scatter:
    """Figures over layers, on a logarithmic scale."""

    dots: tuple[Dot, ...]
    powers: tuple[Line, ...]
    layers: tuple[Line, ...]
    bounds: tuple[Line, ...]
    kinds: tuple[str, ...]
    height: float
    width: float = WIDTH
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    bottom: float = 0.0


def scatter_of(points: Sequence[Point], bounds: Sequence[float], layers: int, *, height: float = 220.0) -> Scatter:
    """Lay points out, those that are zero on the floor.

    Args:
        points: of one check.
        bounds: that they were held against.
        layers: of the parent.
        height: of the chart.
    """
    positive = [value for value in (*(p.value for p in points), *bounds) if value > 0 and math.isfinite(value)]
    low = math.floor(math.log10(min(positive, default=1e-8)))
    high = math.ceil(math.log10(max(positive, default=1.0)))
    high += high == low
    floor, plot = height - _BOTTOM, height - _TOP - _BOTTOM

    def y(value: float) -> float:
        if value <= 0:
            return floor
        return _TOP + (high - min(math.log10(value), high)) / (high - low) * plot

    step = (WIDTH - _LEFT - _RIGHT) / max(1, layers)
    every = max(1, -(-layers // 16))
    return Scatter(
        dots=tuple(Dot(p.kind, _LEFT + (p.layer + 0.5) * step, y(p.value), p.title) for p in points),
        powers=tuple(Line(y(10.0**power), f"1e{power}") for power in range(low, high + 1)),
        layers=tuple(Line(_LEFT + (i + 0.5) * step, str(i)) for i in range(0, layers, every)),
        bounds=tuple(Line(y(bound), f"{bound:g}") for bound in sorted(set(bounds))),
        kinds=tuple(dict.fromkeys(p.kind for p in points)),
        height=height,
        bottom=floor,
    )
