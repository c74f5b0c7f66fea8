"""Drawings of an architecture in the style of the paper's Fig. 5."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve
from matplotlib.textpath import TextPath

from ruas_mm.search.genotype import Genotype
from ruas_mm.search.operations import OPERATIONS
from ruas_mm.visualization.operation_style import KINDS, kind_of, save_figure

# Lengths of the drawing, in inches, and sizes of its text, in points.
_TEXT, _LABEL, _TITLE = 9.0, 8.5, 10.5
_BOX, _ROOM = 0.34, 0.16  # height of a node, and least distance between nodes in a column
_PORTS = {'source': 0.2, 'target': 0.14}  # distance of arrows that leave a node, and that reach it
_ARC, _LANE = 0.42, 0.32  # distance of arcs above each other, and of arrows between the same two nodes
_MARGIN, _GAP, _HEAD = 0.18, 0.55, 0.34  # around the figure, between cells, and for the title above a cell
_UNDECIDED = ((0, (3, 1.5)), '? undecided: dashed')  # line style of undecided slots, and its legend


def draw_architecture(genotype: Genotype, edges: Mapping[str, tuple[str, str]], path: str | Path) -> None:
    """Draw the found cells into a file, in the style of the paper's Fig. 5.

    Args:
        genotype (Genotype): The architecture.
        edges (Mapping[str, tuple[str, str]]): The source and target node of each slot, as in ``SearchSlots``;
            slots that are not in the genotype are ignored.
        path (str | Path): File to write; its suffix selects the format (png, pdf, svg, …), by default png.

    Raises:
        ValueError: If the edge of a slot is unknown, the edges form a cycle, or the format is unknown.
        OSError: If the file cannot be written.
    """
    save_figure(architecture_figure(genotype, edges), path)


def _extent(text: str, size: float) -> float:
    """Return the width of a text in inches."""
    return float(np.ptp(TextPath((0, 0), text, size=size).vertices[:, 0])) / 72 if text.strip() else 0.0


@dataclass
class _Node:
    """A box: its centre and half sizes in inches, and where it stands in the graph."""

    depth: int
    x: float = 0.0
    y: float = 0.0
    half_width: float = 0.0
    half_height: float = 0.0

    def holds(self, points: np.ndarray, margin: float = 0.0) -> np.ndarray:
        """Return for each point (N, 2) whether it is inside the box extended by the margin."""
        inside = np.abs(points - (self.x, self.y)) < (self.half_width + margin, self.half_height + margin)
        return inside.all(axis=-1)


@dataclass
class _Arrow:
    """One slot: what it joins, its label with half its size, its points in inches, and where on them the label is."""

    source: str
    target: str
    label: str
    kind: str
    half: tuple[float, float]
    undecided: bool = False
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    at: float = 0.5

    @property
    def centre(self) -> np.ndarray:
        """Where the label stands."""
        return self.points[round(self.at * (len(self.points) - 1))]


class _Cell:
    """The graph of one prefix, laid out from left to right by the longest path to each node."""

    def __init__(self, name: str, slots: Mapping[str, str], genotype: Genotype, edges: Mapping[str, tuple]) -> None:
        self.name = name
        self.arrows: list[_Arrow] = []
        for slot, operation in slots.items():
            label = OPERATIONS[operation].short_name
            if operation in genotype.probabilities.get(slot, {}):
                label += f' {genotype.probabilities[slot][operation]:.2f}'
            undecided = slot in genotype.undecided
            label += ' ?' * undecided
            half = (_extent(label, _LABEL) / 2 + 0.05, _LABEL / 72 / 2 + 0.025)
            self.arrows.append(_Arrow(*edges[slot], label, kind_of(OPERATIONS[operation]), half, undecided))
        self.nodes = {node: _Node(depth) for node, depth in self._depths().items()}
        self._place_nodes()
        self._route()
        self._place_labels()
        corners = [corner for node in self.nodes.values() for corner in _corners(node)]
        corners += [arrow.centre + sign * np.array(arrow.half) for arrow in self.arrows for sign in (-1, 1)]
        extent = np.concatenate([np.array(corners), *(arrow.points for arrow in self.arrows)])
        self.low, self.high = extent.min(axis=0), extent.max(axis=0)

    @property
    def size(self) -> np.ndarray:
        """Width and height with the title, in inches."""
        width, height = self.high - self.low
        return np.array([max(width, _extent(self.name, _TITLE) * 1.15), height + _HEAD])

    def _depths(self) -> dict[str, int]:
        before: dict[str, list[str]] = {}
        for arrow in self.arrows:
            before.setdefault(arrow.source, [])
            before.setdefault(arrow.target, []).append(arrow.source)
        try:
            order = list(TopologicalSorter(before).static_order())
        except CycleError as error:
            raise ValueError(f'The edges of {self.name!r} form a cycle: {" -> ".join(error.args[1])}.') from None
        depths: dict[str, int] = {}
        for node in order:
            depths[node] = max((depths[source] + 1 for source in before[node]), default=0)
        return {node: depths[node] for node in before}  # in the order in which the slots name them

    def _place_nodes(self) -> None:
        columns = [
            [name for name, node in self.nodes.items() if node.depth == depth]
            for depth in range(max(node.depth for node in self.nodes.values()) + 1)
        ]
        neighbours: dict[str, list[str]] = {name: [] for name in self.nodes}
        for arrow in self.arrows:
            neighbours[arrow.source].append(arrow.target)
            neighbours[arrow.target].append(arrow.source)
        rank = {name: (row + 0.5) / len(column) for column in columns for row, name in enumerate(column)}
        for _ in range(4):  # each node near the mean of its neighbours, so that few arrows cross
            for column in columns:
                column.sort(key=lambda name: np.mean([rank[other] for other in neighbours[name]]))
                rank.update({name: (row + 0.5) / len(column) for row, name in enumerate(column)})

        width = max(_extent(name, _TEXT) for name in self.nodes) / 2 + 0.12
        direct = [arrow for arrow in self.arrows if self._is_direct(arrow)]
        for name, node in self.nodes.items():
            ports = [sum(getattr(arrow, end) == name for arrow in direct) * _PORTS[end] for end in _PORTS]
            node.half_width, node.half_height = width, max(_BOX, *(port + 0.1 for port in ports)) / 2
        heights = [len(column) * max(2 * self.nodes[name].half_height + _ROOM for name in column) for column in columns]
        x = 0.0
        for depth, column in enumerate(columns):
            for name in column:
                self.nodes[name].x, self.nodes[name].y = x, -rank[name] * max(heights)
            x += 2 * width + self._distance(depth)

    def _is_direct(self, arrow: _Arrow) -> bool:
        return self.nodes[arrow.target].depth == self.nodes[arrow.source].depth + 1

    def _distance(self, depth: int) -> float:
        """Return the distance between a column and the next: room for labels, in one stack a target."""
        between = [arrow for arrow in self.arrows if self.nodes[arrow.source].depth == depth and self._is_direct(arrow)]
        if not between:
            return 0.5
        stacks = min(len({arrow.source for arrow in between}), len({arrow.target for arrow in between}), 3)
        return 0.5 + 2 * max(arrow.half[0] for arrow in self.arrows) + (stacks - 1) * 1.4

    def _route(self) -> None:
        """Draw direct arrows from side to side, the others as arcs above the nodes in between."""
        nodes = self.nodes
        direct = [arrow for arrow in self.arrows if self._is_direct(arrow)]
        arcs = [arrow for arrow in self.arrows if not self._is_direct(arrow)]
        arcs.sort(key=lambda arrow: nodes[arrow.target].depth - nodes[arrow.source].depth)

        alike = Counter((arrow.source, arrow.target) for arrow in direct)
        seen: Counter = Counter()
        for arrow in direct:
            pair = (arrow.source, arrow.target)
            source, target = nodes[arrow.source], nodes[arrow.target]
            start = (source.x + source.half_width, source.y + self._port(arrow, 'source', direct))
            end = (target.x - target.half_width - 0.02, target.y + self._port(arrow, 'target', direct))
            lane = (alike[pair] - 1) / 2 - seen[pair]
            seen[pair] += 1
            arrow.points = _bezier(start, end, lane * (_LANE - sum(_PORTS.values()) / 2), horizontal=True)

        routed = list(direct)
        for arrow in arcs:
            source, target = nodes[arrow.source], nodes[arrow.target]
            start = (source.x + self._landing(arrow, 'source', arcs), source.y)
            end = (target.x + self._landing(arrow, 'target', arcs), target.y)
            others = [node for node in nodes.values() if node is not source and node is not target]
            best = math.inf
            for level in sorted(range(-len(self.arrows) - 1, len(self.arrows) + 2), key=abs):
                points = _bezier(start, end, level * _ARC)
                left = np.flatnonzero(~source.holds(points))[0]
                points = points[left - 1 :][~target.holds(points[left - 1 :], 0.02)]
                middle = points[len(points) // 2]
                near = (np.abs(other.points - middle).max(axis=1).min() < 0.7 * _ARC for other in routed)
                cost = abs(level) + 4 * (level < 0)
                cost += 100 * sum(node.holds(points, 0.08).any() for node in others)
                cost += 4 * sum(_cross(points, other.points) for other in routed) + 20 * sum(near)
                if cost < best:
                    best, arrow.points = cost, points
            routed.append(arrow)

    def _port(self, arrow: _Arrow, end: str, direct: Sequence[_Arrow]) -> float:
        """Return where on a side of its node a direct arrow sits: they are spread in the order of where they lead."""
        other = 'target' if end == 'source' else 'source'
        mine = [each for each in direct if getattr(each, end) == getattr(arrow, end)]
        mine.sort(key=lambda each: -self.nodes[getattr(each, other)].y)
        return ((len(mine) - 1) / 2 - _index(mine, arrow)) * _PORTS[end]

    def _landing(self, arrow: _Arrow, end: str, arcs: Sequence[_Arrow]) -> float:
        """Return where along its node an arc sits, the short ones on the inside; ``arcs`` are sorted by length."""
        mine = [each for each in arcs if getattr(each, end) == getattr(arrow, end)]
        place = (_index(mine, arrow) + 0.5) / len(mine) * 2 - 1
        return 0.8 * self.nodes[getattr(arrow, end)].half_width * (place if end == 'target' else -place)

    def _place_labels(self) -> None:
        """Place each label on its arrow so that it covers no node, no other label and few other arrows."""
        nodes = np.array([(node.x, node.y) for node in self.nodes.values()])
        sizes = np.array([(node.half_width, node.half_height) for node in self.nodes.values()]) + 0.08
        halves = np.array([arrow.half for arrow in self.arrows])
        centres = np.array([arrow.centre for arrow in self.arrows])
        points = np.concatenate([arrow.points for arrow in self.arrows])
        owners = np.repeat(np.arange(len(self.arrows)), [len(arrow.points) for arrow in self.arrows])

        def cost(index: int) -> float:
            centre, half = centres[index], halves[index]
            room = half + halves + 0.03 - np.abs(centre - centres)
            covered = (room > 0).all(axis=1)
            covered[index] = False
            crossed = set(owners[(np.abs(points - centre) < half).all(axis=1)]) - {index}
            inside = (np.abs(centre - nodes) < half + sizes).all(axis=1)
            total = 3 * (self.arrows[index].at - 0.5) ** 2 + len(crossed) + 300 * inside.sum()
            return float(total + 100 * (10 * room[covered].prod(axis=1) + 1).sum())

        def move(stack: Sequence[int], at: float) -> None:
            for index in stack:
                self.arrows[index].at = at
                centres[index] = self.arrows[index].centre

        def improve(stack: Sequence[int]) -> None:
            def cost_at(at: float) -> float:
                move(stack, at)
                return sum(map(cost, stack))

            move(stack, min([self.arrows[stack[0]].at, *np.linspace(0.06, 0.94, 45)], key=cost_at))

        stacks: dict[Any, list[int]] = {}
        for index, arrow in enumerate(self.arrows):
            # Labels of arrows from one column to the same node form a stack; the label of an arc is placed alone.
            alone = None if self._is_direct(arrow) else index
            stacks.setdefault((self.nodes[arrow.source].depth, arrow.target, alone), []).append(index)
        for stack in [*stacks.values()] * 3:
            improve(stack)
        for index in range(len(self.arrows)):
            if cost(index) > 100:
                improve([index])

    def draw(self, axes: Axes, offset: np.ndarray) -> None:
        """Draw the cell.

        Args:
            axes (Axes): Where to; its unit is the inch.
            offset (np.ndarray): Position of the upper left corner, shape (2,).
        """
        axes.text(*offset, self.name, size=_TITLE, weight='bold', va='top', ha='left')
        shift = offset - (self.low[0], self.high[1] + _HEAD)
        for arrow in self.arrows:
            colour = KINDS[arrow.kind][1]
            style = {'arrowstyle': '-|>', 'mutation_scale': 9, 'lw': 1.3, 'color': colour, 'shrinkA': 0, 'shrinkB': 0}
            style['linestyle'] = _UNDECIDED[0] if arrow.undecided else '-'
            axes.add_patch(FancyArrowPatch(path=Curve(arrow.points + shift), **style, fill=False, zorder=1))
            box = {'boxstyle': 'square,pad=0.15', 'fc': 'white', 'ec': 'none'}
            centre = arrow.centre + shift
            axes.text(*centre, arrow.label, size=_LABEL, color=colour, ha='center', va='center', bbox=box, zorder=2)
        for name, node in self.nodes.items():
            centre = shift + (node.x, node.y)
            axes.add_patch(
                FancyBboxPatch(
                    centre - (node.half_width, node.half_height),
                    2 * node.half_width,
                    2 * node.half_height,
                    boxstyle='round,pad=0,rounding_size=0.08',
                    fc='#f2f2ef',
                    ec='#404040',
                    lw=1.0,
                    zorder=3,
                )
            )
            axes.text(*centre, name, size=_TEXT, ha='center', va='center_baseline', zorder=4)


def _corners(node: _Node) -> list[tuple[float, float]]:
    return [(node.x + sign * node.half_width, node.y + sign * node.half_height) for sign in (-1, 1)]


def _index(arrows: Sequence[_Arrow], arrow: _Arrow) -> int:
    return next(index for index, each in enumerate(arrows) if each is arrow)


def _bezier(start: tuple[float, float], end: tuple[float, float], bulge: float, horizontal: bool = False) -> np.ndarray:
    """Return 160 points of a cubic curve from start to end, its middle lifted by ``bulge``."""
    p, q = np.array(start), np.array(end)
    reach = (q - p) * ((0.6, 0) if horizontal else (0.2, 0.2))
    lift = np.array([0, bulge / 0.75])
    t = np.linspace(0, 1, 160)[:, None]
    first, second = p + reach + lift, q - reach + lift
    return (1 - t) ** 3 * p + 3 * (1 - t) ** 2 * t * first + 3 * (1 - t) * t**2 * second + t**3 * q


def _cross(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two polylines (N, 2), (M, 2) cross."""

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        return np.sign(
            (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0])
        )

    a, b = a[::3], b[::3]
    p, q, r, s = a[:-1, None], a[1:, None], b[None, :-1], b[None, 1:]
    return bool(((side(p, q, r) * side(p, q, s) < 0) & (side(r, s, p) * side(r, s, q) < 0)).any())


def architecture_figure(genotype: Genotype, edges: Mapping[str, tuple[str, str]]) -> Figure:
    """Draw the found cells: one graph per prefix (``scene``, ``ssd_neck``, …) and one arrow per slot.

    Arrows are labelled as in Table I. The label includes the probability of the operation at the end of the search, if
    the genotype contains it. Slots that the search left undecided have a dashed arrow and a question mark.

    Args:
        genotype (Genotype): The architecture.
        edges (Mapping[str, tuple[str, str]]): The source and target node of each slot; see
            :func:`draw_architecture`.

    Returns:
        Figure: The drawing, at its own size.

    Raises:
        ValueError: If the edge of a slot is unknown, or the edges form a cycle.
    """
    prefixes: dict[str, dict[str, str]] = {}
    for slot, operation in genotype.slots.items():
        if slot not in edges:
            raise ValueError(f'The edge of slot {slot!r} is unknown, so it cannot be drawn.')
        prefixes.setdefault(slot.rpartition('.')[0], {})[slot] = operation
    cells = [_Cell(prefix, slots, genotype, edges) for prefix, slots in prefixes.items()]
    offsets, (width, height) = _pack([cell.size for cell in cells])

    kinds = [kind for kind in KINDS if any(arrow.kind == kind for cell in cells for arrow in cell.arrows)]
    titles = [f'{KINDS[kind][0]}  {kind}' for kind in kinds]
    handles = [Line2D([], [], color=KINDS[kind][1], lw=2) for kind in kinds]
    if any(arrow.undecided for cell in cells for arrow in cell.arrows):
        titles.append(_UNDECIDED[1])
        handles.append(Line2D([], [], color='#404040', lw=1.3, linestyle=_UNDECIDED[0]))
    needed = max(_extent(title, _LABEL) for title in titles) + 0.75
    columns = min(len(titles), max(1, int((width + 2 * _MARGIN) / needed)))
    legend_height = 0.22 * math.ceil(len(titles) / columns) + 0.25
    width, height = max(width + 2 * _MARGIN, needed), height + 2 * _MARGIN + legend_height

    figure = Figure(figsize=(width, height), facecolor='white')
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.axis('off')
    for cell, (x, y) in zip(cells, offsets, strict=True):
        cell.draw(axes, np.array([x + _MARGIN, height - y - _MARGIN]))
    axes.legend(handles, titles, ncols=columns, loc='lower center', fontsize=_LABEL, frameon=False, handlelength=1.6)
    return figure


def _pack(sizes: Sequence[np.ndarray]) -> tuple[list[tuple[float, float]], tuple[float, float]]:
    """Stack boxes in columns, in their order, such that the whole fits the smallest page twice as wide as high."""
    heights = [height for _, height in sizes]
    limits = {sum(heights[i:j]) + _GAP * (j - i - 1) for i in range(len(sizes)) for j in range(i + 1, len(sizes) + 1)}
    best: tuple[float, list, tuple] = (math.inf, [], (0.0, 0.0))
    for limit in sorted(limit for limit in limits if limit >= max(heights)):
        offsets, x, y, column, total = [], 0.0, 0.0, 0.0, 0.0
        for width, height in sizes:
            if y and y + height > limit + 1e-9:
                x, y, column = x + column + _GAP, 0.0, 0.0
            offsets.append((x, y))
            column, total = max(column, width), max(total, y + height)
            y += height + _GAP
        page = max(x + column, 2 * total)
        if page < best[0]:
            best = (page, offsets, (x + column, total))
    return best[1:]
