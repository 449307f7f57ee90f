"""The page that shows what a filter changed: each dimension's scores before and after, as bars and as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgs.filtering.choose import BIN, Filtered, Spread
from mgs.safe_text import html_template

STEPS = (1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000)  # widths of bars, in bins
MOST_BARS = 30
WIDTH, PANEL, LEFT, RIGHT, TOP, GAP, BOTTOM = 480, 110, 8, 8, 22, 30, 24  # of a drawing, in its own units
TICKS = 6


@dataclass(frozen=True)
class Bar:
    """How many images have a score from `low` to below `high`."""

    low: float
    high: float
    before: int
    after: int


def make_bars(before: Spread, after: Spread) -> list[Bar]:
    """Bars of equal width, with round limits, over all scores that there were before."""
    first, last = min(before.bins), max(before.bins)
    step = next((step for step in STEPS if last // step - first // step < MOST_BARS), STEPS[-1])
    bars = []
    for low in range(first // step * step, last + 1, step):
        bins = range(low, low + step)
        counts = [sum(spread.bins.get(number, 0) for number in bins) for spread in (before, after)]
        bars.append(Bar(low * BIN, (low + step) * BIN, *counts))
    return bars


def draw(before: Spread, after: Spread) -> dict[str, Any]:
    """One dimension as the template shows it: two panels, all images above those kept, over one axis."""
    bars = make_bars(before, after)
    low, high = bars[0].low, bars[-1].high
    unit = (WIDTH - LEFT - RIGHT) / (high - low)
    panels = []
    for number, (spread, name) in enumerate(((before, "before"), (after, "kept"))):
        counts = [bar.before if name == "before" else bar.after for bar in bars]
        base, most = TOP + PANEL + number * (PANEL + GAP), max(*counts, 1)
        rects = []
        for bar, count in zip(bars, counts, strict=True):
            height = PANEL * count / most
            if count:
                rects.append((LEFT + (bar.low - low) * unit, base - height, (bar.high - bar.low) * unit - 1, height))
        mean = None if spread.mean is None else LEFT + (min(max(spread.mean, low), high) - low) * unit
        panel = {"name": name, "spread": spread, "base": base, "top": base - PANEL, "rects": rects}
        panels.append(panel | {"mean": mean, "most": most})
    every = -(-len(bars) // TICKS)
    ticks = [(LEFT + (bar.low - low) * unit, bar.low) for bar in bars[::every]]
    return {
        "panels": panels,
        "ticks": ticks,
        "bars": bars,
        "width": WIDTH,
        "height": TOP + 2 * PANEL + GAP + BOTTOM,
        "left": LEFT,
        "right": WIDTH - RIGHT,
    }


def render_page(title: str, filtered: Filtered, tables: Iterable[Path], asked: Mapping[str, str | None]) -> str:
    """The whole page; `asked` are the command's options, None for those that were not given."""
    rows = [
        ("rows read", filtered.read),
        ("with an error, left out", filtered.failed),
        *([("that fulfil --keep", filtered.passed)] if asked.get("--keep") else []),
        *([("without a value to order them by, left out", filtered.without_value)] if filtered.by else []),
        ("kept", filtered.kept),
    ]
    drawings = {name: draw(spread, filtered.after[name]) for name, spread in filtered.before.items() if spread.count}
    facts = {"tables": ", ".join(map(str, tables)), **{option: text for option, text in asked.items() if text}}
    template = html_template("mgs.filtering", "page.html.j2")
    return template.render(title=title, rows=rows, facts=facts, drawings=drawings, remarks=filtered.remarks)
