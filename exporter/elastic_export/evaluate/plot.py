"""An evaluation as a picture: bits per byte over parameters and over VRAM, one SVG file that needs nothing beside it.

Written by hand: a dozen points and their axes are fewer lines than a plotting library is megabytes in every release CI.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from xml.etree import ElementTree as ET

from elastic_export.evaluate.result import Evaluation, Row

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 400, 280, 64, 48, 72
_COLOURS = {"fp32": "#1f5fa8", "bf16": "#b5561c", "fp16": "#2f7d3b"}
_GREY, _RADIUS, _TICKS = "#666666", 4.5, 5
_TEXT = {"font-family": "sans-serif", "font-size": "12"}


@dataclass(frozen=True)
class _Axis:
    """A linear axis from value `low` to `high` along pixels `begin` to `end`."""

    low: float
    high: float
    begin: float
    end: float

    @classmethod
    def of(cls, values: Sequence[float], begin: float, end: float) -> _Axis:
        """With a margin of a tenth; of equal values one of their size."""
        low, high = min(values), max(values)
        margin = (high - low) / 10 or abs(low) / 10 or 1.0
        return cls(low - margin, high + margin, begin, end)

    def at(self, value: float) -> float:
        return self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin)

    def ticks(self) -> list[float]:
        """Round numbers on it: multiples of 1, 2 or 5 times a power of ten."""
        least = (self.high - self.low) / _TICKS
        power = 10.0 ** math.floor(math.log10(least))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)
        return [step * n for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def plot(found: Evaluation) -> str:
    """The text of the SVG file."""
    kinds = {_kind(found, row): row for row in found.rows}
    begin = _LEFT + 70  # behind the name of the vertical axis
    places = list(accumulate((34 + 8 * len(name) for name in kinds), initial=begin))
    width, height = max(2 * (_LEFT + _WIDTH) + _GAP, places[-1]), _TOP + _HEIGHT + 56
    size = {"width": str(width), "height": str(height), "viewBox": f"0 0 {width} {height}"}
    svg = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size, **_TEXT})
    ET.SubElement(svg, "rect", {"width": "100%", "height": "100%", "fill": "white"})
    title = f"{found.subject.name} on {found.text.name}: {found.text.tokens} tokens, {found.text.bytes} bytes"
    _text(svg, _LEFT, 20, title, anchor="start", weight="bold")
    scale, unit = (1e9, "billion") if max(row.parameters for row in found.rows) >= 1e9 else (1e6, "million")
    _panel(svg, _LEFT, found, lambda row: row.parameters / scale, f"parameters, {unit}", [])
    vram = f"VRAM at {found.vram_context} tokens, GiB (estimated)"
    _panel(svg, 2 * _LEFT + _WIDTH + _GAP, found, lambda row: row.vram_bytes / 2**30, vram, found.best())
    for place, (name, row) in zip(places, kinds.items(), strict=False):
        _dot(svg, place, 36, row)
        _text(svg, place + 10, 40, name, anchor="start")
    return ET.tostring(svg, encoding="unicode") + "\n"


def _panel(
    svg: ET.Element, left: float, found: Evaluation, of: Callable[[Row], float], label: str, best: Sequence[Row]
) -> None:
    """One diagram; `best` are joined by a line."""
    bottom, rows = _TOP + _HEIGHT, found.rows
    across = _Axis.of([of(row) for row in rows], left, left + _WIDTH)
    up = _Axis.of([row.bits_per_byte for row in rows], bottom, _TOP)
    for tick in across.ticks():
        _line(svg, across.at(tick), bottom, across.at(tick), _TOP)
        _text(svg, across.at(tick), bottom + 18, f"{tick:.4g}")
    for tick in up.ticks():
        _line(svg, left, up.at(tick), left + _WIDTH, up.at(tick))
        _text(svg, left - 8, up.at(tick) + 4, f"{tick:.4g}", anchor="end")
    _text(svg, left + _WIDTH / 2, bottom + 40, label)
    _text(svg, left - 50, _TOP - 8, "bits per byte", anchor="start")
    if best:
        points = " ".join(f"{across.at(of(row)):.1f},{up.at(row.bits_per_byte):.1f}" for row in best)
        ET.SubElement(svg, "polyline", {"points": points, "fill": "none", "stroke": _GREY, "stroke-dasharray": "4 3"})
    named: set[tuple[str, float]] = set()
    for row in rows:
        x, y = across.at(of(row)), up.at(row.bits_per_byte)
        dot = _dot(svg, x, y, row)
        ET.SubElement(dot, "title").text = f"{row.budget} in {_kind(found, row)}: {row.bits_per_byte:.4f} bits per byte"
        if (row.budget, x) not in named:  # another precision of it lies above or below
            _text(svg, x, y - 9, row.budget)
            named.add((row.budget, x))


def _kind(found: Evaluation, row: Row) -> str:
    return f"{found.weights_of(row)} at {row.precision}" if found.quantised else row.precision


def _dot(svg: ET.Element, x: float, y: float, row: Row) -> ET.Element:
    """Full; of a quantised sub-model a ring."""
    place, colour = {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": str(_RADIUS)}, _COLOURS[row.precision]
    ring = {"fill": "white", "stroke": colour, "stroke-width": "2"}
    filled = {"fill": colour, "fill-opacity": "0.8"}
    return ET.SubElement(svg, "circle", {**place, **(ring if row.quantisation else filled)})


def _line(svg: ET.Element, x1: float, y1: float, x2: float, y2: float) -> None:
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    ET.SubElement(svg, "line", {**ends, "stroke": _GREY, "stroke-opacity": "0.25"})


def _text(svg: ET.Element, x: float, y: float, text: str, *, anchor: str = "middle", weight: str = "normal") -> None:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "font-weight": weight}
    ET.SubElement(svg, "text", place).text = text
