"""Curves as small SVG files. Drawing needs matplotlib (the extra `bench`); without matplotlib there are tables alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MISSING = "no plot: matplotlib is not installed (pip install 'errata-server[bench]'); CSV and JSON are complete"
_COLUMNS = 3
_INCHES = (4.2, 3.0)  # of one panel


@dataclass(frozen=True)
class Line:
    """One curve. A `y` of None was not measured and has no point."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Panel:
    """One pair of axes. `aim` is drawn as a dotted line."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    aim: float | None = None
    share: bool = True  # the y axis runs from 0 to 1
    log_x: bool = False


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw(path: Path, panels: Sequence[Panel]) -> bool:
    """Write the panels as one SVG with one legend. False if matplotlib is not installed."""
    if not can_draw():
        return False
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    # Text stays text, and ids are the same in every run: files are small, and equal figures give equal files.
    settings: dict[str, Any] = {"svg.fonttype": "none", "svg.hashsalt": "errata", "font.size": 8, "font.family": "sans-serif"}
    with pyplot.rc_context(settings):
        columns = 2 if len(panels) == 4 else min(len(panels), _COLUMNS)
        rows = -(-len(panels) // columns)
        figure, axes = pyplot.subplots(rows, columns, figsize=(_INCHES[0] * columns, _INCHES[1] * rows), squeeze=False)
        styles = _styles(panels)
        for index, axis in enumerate(axes.flat):
            if index < len(panels):
                _fill(axis, panels[index], styles)
            else:
                axis.set_axis_off()
        _legend(figure, axes)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
        pyplot.close(figure)
    return True


def _styles(panels: Sequence[Panel]) -> Mapping[str, dict[str, Any]]:
    """One colour and marker for each name, in all panels."""
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    marks = "osD^vPX*<>"
    return {
        name: {"color": f"C{number % 10}", "marker": marks[number % len(marks)], "markersize": 3, "linewidth": 1.2}
        for number, name in enumerate(names)
    }


def _fill(axis: Any, panel: Panel, styles: Mapping[str, dict[str, Any]]) -> None:
    for line in panel.lines:
        points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
        if points:
            axis.plot(*zip(*points, strict=True), label=line.name, **styles[line.name])
    if panel.aim is not None:
        axis.axhline(panel.aim, color="gray", linestyle=":", linewidth=1)
    if panel.share:
        axis.set_ylim(-0.03, 1.05)
    else:
        axis.set_ylim(bottom=0)
    if panel.log_x:
        axis.set_xscale("log")
    axis.set_title(panel.title)
    axis.set_xlabel(panel.x)
    axis.set_ylabel(panel.y)
    axis.grid(alpha=0.3)


def _legend(figure: Any, axes: Any) -> None:
    """All names once, below the panels."""
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        handles |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.tight_layout()
    if len(handles) > 1:
        figure.legend(handles.values(), handles.keys(), loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=4, frameon=False)
