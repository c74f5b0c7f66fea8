"""Plots of the probabilities of the candidates during a search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator

from ruas_mm.search.operations import OPERATIONS
from ruas_mm.visualization.operation_style import KINDS, kind_of, save_figure

# Line and marker of a dilation.
_DILATIONS = {
    1: ('-', 'o'),
    2: ('-', 'o'),
    6: ((0, (5, 1.5)), 's'),
    12: ((0, (1, 1.2)), '^'),
    18: ((0, (5, 1.5, 1, 1.5)), 'D'),
}


def plot_probabilities(history: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Plot the probability of every candidate over the iterations of a search into a file, one panel per slot.

    Args:
        history (Sequence[Mapping]): Records ``{'iter': int, 'probabilities': {slot: {candidate: p}}}``.
        path (str | Path): File to write; its suffix selects the format (png, pdf, svg, …), by default png.

    Raises:
        ValueError: If the history holds no probabilities or names an unknown operation, or the format is unknown.
        OSError: If the file cannot be written.
    """
    save_figure(probabilities_figure(history), path)


def probabilities_figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot the probability of every candidate over the iterations, one panel per slot and one legend per search space.

    A candidate has the same style in all figures: the colour of its kind in :func:`architecture_figure`, darker for
    larger kernels, and a dashed line if its dilation is above 2.

    Args:
        history (Sequence[Mapping]): Records ``{'iter': int, 'probabilities': {slot: {candidate: p}}}``.

    Returns:
        Figure: The plot.

    Raises:
        ValueError: If the history holds no probabilities or names an unknown operation.
    """
    spaces: dict[tuple[str, ...], dict[str, tuple[list[int], list[list[float]]]]] = {}
    for record in history:
        for slot, row in record['probabilities'].items():
            iterations, rows = spaces.setdefault(tuple(row), {}).setdefault(slot, ([], []))
            iterations.append(record['iter'])
            rows.append(list(row.values()))
    if not spaces:
        raise ValueError('The history of the search holds no probabilities to plot.')
    for candidate in (candidate for space in spaces for candidate in space):
        if candidate not in OPERATIONS:
            raise ValueError(
                f'The history of the search names the unknown operation {candidate!r}; '
                f'the known ones are {", ".join(OPERATIONS)}.'
            )

    columns = min(4, max(map(len, spaces.values())))
    lines = [math.ceil(len(slots) / columns) for slots in spaces.values()]
    panel_width, panel_height, left, right = 2.35, 1.75, 0.55, 0.15
    width = max(columns * panel_width + left + right, 4.2)
    panel_width = (width - left - right) / columns
    legend_columns = int(width / 0.96)
    legends = [0.35 + 0.17 * math.ceil(len(space) / legend_columns) for space in spaces]
    height = sum(lines) * panel_height + sum(legends)
    figure = Figure((width, height))
    FigureCanvasAgg(figure)
    top = 0.05
    for (space, slots), line_count, legend in zip(spaces.items(), lines, legends, strict=True):
        highest = max(p for _, rows in slots.values() for row in rows for p in row)
        for index, (slot, (iterations, rows)) in enumerate(slots.items()):
            line, column = divmod(index, columns)
            x, y = left + column * panel_width, height - top - (line + 1) * panel_height + 0.42
            axes = figure.add_axes((x / width, y / height, (panel_width - 0.3) / width, (panel_height - 0.7) / height))
            alone = len(iterations) == 1
            for candidate, values in zip(space, zip(*rows, strict=True), strict=True):
                axes.plot(iterations, values, **_line_style(candidate, alone))
            axes.set_title(slot, size=9)
            axes.set_ylim(0, 1.05 * highest)
            axes.xaxis.set_major_locator(
                FixedLocator(iterations) if alone else MaxNLocator(4, integer=True, steps=[1, 2, 5, 10])
            )
            axes.tick_params(labelsize=7)
            axes.spines[['top', 'right']].set_visible(False)
            axes.grid(alpha=0.25, lw=0.5)
            if column == 0:
                axes.set_ylabel('probability', size=8)
            else:
                axes.tick_params(labelleft=False)
            if index + columns >= len(slots):
                axes.set_xlabel('iteration', size=8)
        top += line_count * panel_height
        handles = [Line2D([], [], **_line_style(candidate, len(history) == 1)) for candidate in space]
        names = [OPERATIONS[candidate].short_name for candidate in space]
        figure.legend(
            handles,
            names,
            ncols=min(len(space), legend_columns),
            loc='upper center',
            bbox_to_anchor=(0.5, (height - top + 0.04) / height),
            fontsize=8,
            frameon=False,
            handlelength=2.2,
            columnspacing=1.2,
        )
        top += legend
    return figure


def _line_style(candidate: str, marked: bool) -> dict[str, Any]:
    operation = OPERATIONS[candidate]
    shade = min(0.4 + 0.085 * (operation.kernel or 4), 1.0)
    colour = colormaps[KINDS[kind_of(operation)][2]](shade)
    line, marker = _DILATIONS.get(operation.dilation, (':', 'v'))
    return {'color': colour, 'linestyle': line, 'lw': 1.5, 'marker': marker if marked else '', 'markersize': 4}
