"""Figures of the report as PNG, drawn off screen with matplotlib's object interface (no pyplot, no global state)."""

import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hf_tuner.report.wording import shorten

CLASSES_SHOWN = 20
"""More classes than this: the confusion matrix shows the most confused ones."""
BARS_SHOWN = 30
NAME_LENGTH = 24
CLOCK = ("_runtime", "_per_second")
"""Ends of the names of what is logged about the time that an evaluation took."""


@dataclass(frozen=True)
class Theme:
    """Colours of a figure."""

    ground: str
    ink: str
    faint: str
    main: str
    second: str


LIGHT = Theme(ground="#ffffff", ink="#3a3f47", faint="#d9dde3", main="#2f6db3", second="#d07a1f")
DARK = Theme(ground="#1a1d22", ink="#c3c9d2", faint="#383e47", main="#6ea8e8", second="#e5a15a")


@dataclass(frozen=True)
class Picture:
    """One figure as PNG for light and for dark pages, and what it shows in words."""

    light: bytes
    dark: bytes
    text: str

    @property
    def width(self) -> int:
        """Pixels of the page it should take: two thirds of its own, for sharp lines on dense screens."""
        return int.from_bytes(self.light[16:20], "big") * 2 // 3


def png(image: Any) -> bytes:
    """A PIL image as PNG."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def figures(details: Mapping[str, Any]) -> dict[str, Picture]:
    """Every figure that a report's details have the numbers for, by name."""
    known: dict[str, tuple[Callable[..., bytes], str]] = {
        "curves": (curves, "Loss and learning rate over the steps of training"),
        "per_class": (class_bars, "F1 of each class"),
        "confusion": (confusion, "Confusion matrix: expected classes by predicted classes"),
        "calibration": (calibration, "Calibration: how often answers of a given confidence are right"),
        "scatter": (scatter, "Predicted against expected numbers"),
    }
    return {
        name: Picture(draw(details[name], LIGHT), draw(details[name], DARK), text)
        for name, (draw, text) in known.items()
        if _drawable(name, details.get(name))
    }


def curves(history: Sequence[Mapping[str, Any]], theme: Theme = LIGHT) -> bytes:
    """Training and evaluation loss over steps, the learning rate below; rows {step, loss, learning_rate, eval_loss}.

    Where no loss was evaluated, the first score of the validation rows (eval_map …) stands beside the loss.
    """
    figure = _figure(7.2, 4.2, theme)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    loss, evaluated = _series(history, "loss"), _series(history, "eval_loss")
    _line(top, loss, theme.main, "training loss", markers=len(loss[0]) < 3)
    _line(top, evaluated, theme.second, "evaluation loss", markers=True)
    _line(below, _series(history, "learning_rate"), theme.ink, "learning rate")
    top.set_ylabel("loss")
    score = next((key for row in history for key in row if key.startswith("eval_") and not key.endswith(CLOCK)), "")
    if score and not len(evaluated[0]):
        beside = top.twinx()
        _line(beside, _series(history, score), theme.second, score, markers=True)
        beside.set_ylabel(_label(score.removeprefix("eval_")))
        _style(beside, theme, grid=False)
        beside.patch.set_visible(False)
        beside.yaxis.label.set(color=theme.second)
    below.set_ylabel("learning rate")
    below.set_xlabel("step")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    if len(evaluated[0]):
        top.legend(frameon=False, labelcolor=theme.ink)
    for axes in (top, below):
        _style(axes, theme)
    return _png(figure)


def confusion(data: Mapping[str, Any], theme: Theme = LIGHT) -> bytes:
    """Confusion matrix {"matrix" [expected, predicted], "names"}; of many classes only the most confused ones."""
    matrix, names = np.asarray(data["matrix"]), list(data["names"])
    keep = most_confused(matrix, CLASSES_SHOWN)
    shown, share = matrix[np.ix_(keep, keep)], _row_shares(matrix)[np.ix_(keep, keep)]
    side = 2.6 + 0.34 * len(keep)
    figure = _figure(side + 0.8, side, theme)
    axes = figure.subplots()
    colours = LinearSegmentedColormap.from_list("counts", [theme.ground, theme.main])
    axes.imshow(share, cmap=colours, vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(shown), strict=True):
        colour = theme.ground if share[row, column] > 0.55 else theme.ink
        axes.text(column, row, str(shown[row, column]), ha="center", va="center", fontsize=7, color=colour)
    labels = [_label(names[k]) for k in keep]
    tilt: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if len(keep) > 3 else {}
    axes.set_xticks(range(len(keep)), labels, **tilt)
    axes.set_yticks(range(len(keep)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("expected")
    if len(keep) < len(names):
        axes.set_title(f"the {len(keep)} most confused of {len(names)} classes", fontsize=9, color=theme.ink)
    _style(axes, theme, grid=False)
    axes.spines[:].set(visible=True, color=theme.faint)
    return _png(figure)


def most_confused(matrix: np.ndarray, count: int) -> np.ndarray:
    """Indices of the classes with most errors in their row and column, in their own order; all when they are few."""
    if len(matrix) <= count:
        return np.arange(len(matrix))
    errors = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    return np.sort(np.argsort(-(errors.sum(0) + errors.sum(1)), kind="stable")[:count])


def class_bars(classes: Sequence[Mapping[str, Any]], theme: Theme = LIGHT) -> bytes:
    """F1 of each class as bars, best on top; of many classes the weakest ones."""
    known = sorted((c for c in classes if c["f1"] is not None), key=lambda c: -c["f1"])
    shown = known[-BARS_SHOWN:]
    figure = _figure(7.2, 1.0 + 0.24 * len(shown), theme)
    axes = figure.subplots()
    axes.barh(range(len(shown)), [c["f1"] for c in shown], height=0.62, color=theme.main)
    for place, one in enumerate(shown):
        axes.text(one["f1"] + 0.008, place, f"{one['f1']:.2f}", va="center", fontsize=7, color=theme.ink)
    axes.set_yticks(range(len(shown)), [_label(c["name"]) for c in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 1.06)
    axes.set_xlabel("F1")
    if len(shown) < len(known):
        axes.set_title(f"the {len(shown)} weakest of {len(known)} classes", fontsize=9, color=theme.ink)
    _style(axes, theme, grid="x")
    return _png(figure)


def calibration(bins: Sequence[Mapping[str, Any]], theme: Theme = LIGHT) -> bytes:
    """Accuracy against confidence, with the number of rows in each bin below; on the diagonal is right."""
    figure = _figure(4.6, 4.6, theme)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    confidence = [b["confidence"] for b in bins]
    top.plot([0, 1], [0, 1], color=theme.faint, linewidth=1.2)
    top.plot(confidence, [b["accuracy"] for b in bins], color=theme.main, marker="o", markersize=4, linewidth=1.4)
    below.bar(confidence, [b["rows"] for b in bins], width=0.05, color=theme.main, alpha=0.6)
    top.set_xlim(0, 1)
    top.set_ylim(0, 1.02)
    top.set_ylabel("accuracy")
    below.set_ylabel("rows")
    below.set_xlabel("confidence")
    for axis in (top.yaxis, below.xaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes in (top, below):
        _style(axes, theme)
    return _png(figure)


def scatter(data: Mapping[str, Any], theme: Theme = LIGHT) -> bytes:
    """Predicted against expected numbers {"true", "predicted"}; on the diagonal is right."""
    figure = _figure(4.8, 4.6, theme)
    axes = figure.subplots()
    ends = [min(*data["true"], *data["predicted"]), max(*data["true"], *data["predicted"])]
    axes.plot(ends, ends, color=theme.second, linewidth=1.2)
    alpha = 0.5 if len(data["true"]) < 500 else 0.25
    axes.scatter(data["true"], data["predicted"], s=12, color=theme.main, alpha=alpha, linewidths=0)
    axes.set_xlabel("expected")
    axes.set_ylabel("predicted")
    _style(axes, theme)
    return _png(figure)


def _drawable(name: str, data: Any) -> bool:
    """Whether there are numbers enough for a figure that says something."""
    if not data:
        return False
    if name == "curves":
        return any(len(_series(data, key)[0]) for key in ("loss", "eval_loss"))
    if name == "per_class":
        return any(c["f1"] is not None for c in data)
    if name == "scatter":
        return len(data["true"]) > 0 and all(map(math.isfinite, [*data["true"], *data["predicted"]]))
    return True


def _series(history: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one logged number, where it is finite."""
    points = [(h["step"], h[key]) for h in history if h.get(key) is not None and math.isfinite(h[key])]
    return [p[0] for p in points], [p[1] for p in points]


def _line(axes: Any, points: tuple[list[float], list[float]], colour: str, label: str, markers: bool = False) -> None:
    if points[0]:
        axes.plot(*points, color=colour, linewidth=1.6, label=label, marker="o" if markers else None, markersize=4)


def _row_shares(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)


def _label(name: Any) -> str:
    """A class name as a tick: short, one line, dollar signs not read as formulas."""
    return shorten(name, NAME_LENGTH).replace("$", r"\$")


def _figure(width: float, height: float, theme: Theme) -> Figure:
    figure = Figure(figsize=(width, height), facecolor=theme.ground, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _style(axes: Any, theme: Theme, grid: bool | str = True) -> None:
    axes.set_facecolor(theme.ground)
    axes.tick_params(colors=theme.ink, labelsize=8, length=0)
    axes.xaxis.label.set(color=theme.ink, size=9)
    axes.yaxis.label.set(color=theme.ink, size=9)
    axes.yaxis.get_offset_text().set(color=theme.ink, size=8)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if grid:
        axes.grid(axis=grid if isinstance(grid, str) else "both", color=theme.faint, linewidth=0.7)
        axes.set_axisbelow(True)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Names in scripts that the bundled font lacks are drawn as boxes; the page's tables show them right.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
    return buffer.getvalue()
