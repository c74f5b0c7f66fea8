"""The figure of a search's validity report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ruas_mm.visualization.operation_style import save_figure

_COLOURS = {'decided': 'tab:green', 'undecided': 'tab:orange', 'dead': 'tab:gray'}


def plot_validity(report: Mapping[str, Any], path: str | Path) -> None:
    """Plot a validity report into a file.

    Args:
        report (Mapping[str, Any]): What ``ruas_mm.evaluation.search_validity.build_report`` returned.
        path (str | Path): File to write; its suffix says the format (png, pdf, svg, …), png without one.

    Raises:
        ValueError: If the format is unknown.
        OSError: If the file cannot be written.
    """
    save_figure(validity_figure(report), path)


def validity_figure(report: Mapping[str, Any]) -> Figure:
    """Plot a validity report: status and z of the slots, agreement of searches, and the comparison.

    Args:
        report (Mapping[str, Any]): What ``ruas_mm.evaluation.search_validity.build_report`` returned. A panel without
            data is left out.

    Returns:
        Figure: The plot.
    """
    panels = [_plot_slots]
    panels += [_plot_agreement] if report['agreement'] else []
    panels += [_plot_comparison] if report['comparison'] else []
    figure = Figure((4.6 * len(panels), max(3.2, 1.0 + 0.2 * len(report['slots']))), layout='constrained')
    FigureCanvasAgg(figure)
    for axes, plot in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        plot(axes, report)
        axes.tick_params(labelsize=8)
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(axis='x', alpha=0.25, lw=0.5)
    return figure


def _plot_slots(axes: Axes, report: Mapping[str, Any]) -> None:
    slots = report['slots']
    known = any(row['z'] is not None for row in slots.values())
    key = 'z' if known else 'margin'
    values = [abs(row[key] or 0.0) for row in slots.values()]
    axes.barh(range(len(slots)), values, color=[_COLOURS[row['status']] for row in slots.values()])
    axes.set_yticks(range(len(slots)), slots)
    axes.invert_yaxis()
    axes.set_xlabel('|z|' if known else 'difference of log-probabilities to the runner-up', size=8)
    axes.set_title('slots', size=10)
    axes.legend(handles=[Patch(color=colour, label=name) for name, colour in _COLOURS.items()], fontsize=8)


def _plot_agreement(axes: Axes, report: Mapping[str, Any]) -> None:
    rows = report['agreement']
    places = range(len(rows))
    axes.barh(places, [len(row['agreed']) for row in rows.values()], color='tab:blue', label='agreed')
    axes.errorbar(
        [row['expected'] for row in rows.values()],
        places,
        xerr=[row['sd'] for row in rows.values()],
        fmt='o',
        color='black',
        markersize=4,
        capsize=3,
        label='by chance ± sd',
    )
    axes.set_yticks(places, [f'{name} ({row["slots"]})' for name, row in rows.items()])
    axes.invert_yaxis()
    axes.set_xlabel('slots that all searches agree on', size=8)
    axes.set_title('agreement', size=10)
    axes.legend(fontsize=8)


def _plot_comparison(axes: Axes, report: Mapping[str, Any]) -> None:
    rows = {name: row for name, row in report['comparison']['rows'].items() if name != 'plain'}
    for place, row in enumerate(rows.values()):
        interval = row['interval'] or (row['difference'], row['difference'])
        axes.plot(interval, (place, place), color='tab:blue', lw=2)
        if row['standard_error'] is not None:
            two = 2 * row['standard_error']
            axes.plot((row['difference'] - two, row['difference'] + two), (place, place), color='tab:blue', lw=5)
        axes.plot(row['difference'], place, 'o', color='black', markersize=4)
    axes.axvline(0, color='black', lw=0.8)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.margins(y=0.2)
    axes.set_xlabel(f'better than plain by ({report["metric"]}); two standard errors, 95 % interval', size=8)
    axes.set_title('comparison', size=10)
