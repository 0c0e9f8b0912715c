"""What the pictures share: their colours in light and dark, axes with units, and numbers short enough for paths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .text import escape

MINUS = "\N{MINUS SIGN}"

STYLE = """
:root { color-scheme: light dark;
  --paper: #f6f7f9; --card: #ffffff; --ink: #1d2430; --muted: #5d6776; --rule: #d8dde5; --grid: #e9ecf1;
  --request: #1a5fb4; --provisional: #8d6e63; --success: #2a7d31; --redirect: #a86400; --failure: #c01c28;
  --wave: #1a5fb4; --wave-core: #0d3b78; --second: #7b3fa0; --second-core: #4f2470;
  --bar: #9db0bd; --line: #d9480f; --mark: #f5c211; --lost: #c01c28; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171c; --card: #1c2027; --ink: #e6e9ee; --muted: #98a2b1; --rule: #363d48; --grid: #2a303a;
  --request: #78aeed; --provisional: #b39b92; --success: #7bc47f; --redirect: #e5a54b; --failure: #ff7b72;
  --wave: #4a8fdf; --wave-core: #9cc5f5; --second: #a86fce; --second-core: #d9b8ee;
  --bar: #566573; --line: #ff8a4c; --mark: #b8920f; --lost: #ff7b72; } }
svg.sipwire { display: block; width: 100%; height: auto; overflow: visible;
  font: 12px/1.3 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
svg.sipwire text { fill: var(--ink); }
svg.sipwire .muted, svg.sipwire .tick { fill: var(--muted); }
svg.sipwire .tick, svg.sipwire .time { font-variant-numeric: tabular-nums; font-size: 11px; }
svg.sipwire .time { fill: var(--muted); font-family: ui-monospace, "DejaVu Sans Mono", Menlo, monospace; }
svg.sipwire .over { paint-order: stroke; stroke: var(--card); stroke-width: 3px; stroke-linejoin: round; }
svg.sipwire .title { font-size: 13px; font-weight: 600; }
svg.sipwire .axis, svg.sipwire .life { stroke: var(--rule); fill: none; }
svg.sipwire .grid { stroke: var(--grid); fill: none; }
"""
"""The style sheet of all pictures, put once into the page or into each picture that stands alone."""


def number(value: float) -> str:
    """A coordinate with at most one decimal."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def document(width: float, height: float, body: str, *, title: str, standalone: bool) -> str:
    """The svg element around a picture; ``title`` is what a screen reader says."""
    style = f"<style>{STYLE}</style>" if standalone else ""
    name = ' xmlns="http://www.w3.org/2000/svg"' if standalone else ""
    size = f'width="{number(width)}" height="{number(height)}"'
    return (
        f'<svg{name} class="sipwire" {size} viewBox="0 0 {number(width)} {number(height)}" role="img"'
        f' aria-label="{escape(title)}">{style}{body}</svg>'
    )


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most about ``most`` of them."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= most)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_label(value: float, step: float) -> str:
    """A number on an axis, with as many decimals as the step needs and a true minus sign."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", MINUS)


@dataclass(frozen=True, slots=True)
class Frame:
    """The rectangle of a chart, and how values fall into it."""

    left: float
    top: float
    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / ((high - low) or 1.0) * self.width

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.top + self.height - (value - low) / ((high - low) or 1.0) * self.height

    def axes(self, *, x_unit: str, y_unit: str, grid: bool = True, x_labels: bool = True) -> str:
        """Border, ticks with numbers, the unit of x behind its last number and that of y along its axis."""
        parts: list[str] = []
        values = ticks(*self.x_range, 10) if x_labels else []
        step = values[1] - values[0] if len(values) > 1 else 1.0
        for value in values:
            unit = f" {x_unit}" if value == values[-1] else ""
            parts.append(self._x_tick(value, tick_label(value, step) + escape(unit), grid))
        values = ticks(*self.y_range, 5)
        step = values[1] - values[0] if len(values) > 1 else 1.0
        parts.extend(self._y_tick(value, tick_label(value, step), grid) for value in values)
        parts.append(
            f'<rect class="axis" x="{number(self.left)}" y="{number(self.top)}" width="{number(self.width)}"'
            f' height="{number(self.height)}"/>'
        )
        parts.append(
            f'<text class="muted" text-anchor="middle" transform="translate({number(self.left - 40)} '
            f'{number(self.top + self.height / 2)}) rotate(-90)">{escape(y_unit)}</text>'
        )
        return "".join(parts)

    def _x_tick(self, value: float, label: str, grid: bool) -> str:
        x, bottom = number(self.x(value)), self.top + self.height
        line = f'<path class="grid" d="M{x} {number(self.top)}V{number(bottom)}"/>' if grid else ""
        return (
            f'{line}<path class="axis" d="M{x} {number(bottom)}v4"/>'
            f'<text class="tick" x="{x}" y="{number(bottom + 16)}" text-anchor="middle">{label}</text>'
        )

    def _y_tick(self, value: float, label: str, grid: bool) -> str:
        y = self.y(value)
        line = f'<path class="grid" d="M{number(self.left)} {number(y)}h{number(self.width)}"/>' if grid else ""
        return (
            f'{line}<path class="axis" d="M{number(self.left - 4)} {number(y)}h4"/>'
            f'<text class="tick" x="{number(self.left - 8)}" y="{number(y + 4)}" text-anchor="end">{label}</text>'
        )


def path(points: Sequence[tuple[float, float]], colour: str, extra: str = "") -> str:
    """A line through points."""
    steps = " ".join(f"{number(x)} {number(y)}" for x, y in points)
    return f'<path d="M{steps}" fill="none" stroke="{colour}" stroke-linejoin="round" {extra}/>' if points else ""
