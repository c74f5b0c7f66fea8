"""Drawings of an architecture: everything that was found is there, legible, and the file is whole."""

import itertools
from collections import Counter

import numpy as np
import pytest
from matplotlib import _pylab_helpers
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.text import Text
from PIL import Image

from ruas_mm.search import HIGH_LEVEL_SPACE, SCENE_SPACE, Genotype
from ruas_mm.visualization.architecture import architecture_figure, draw_architecture
from ruas_mm.visualization.probabilities import plot_probabilities, probabilities_figure

CELL = {
    'distill_1': ('in', 'out'),
    'remain_1': ('in', 'r1'),
    'distill_2': ('r1', 'out'),
    'remain_2': ('r1', 'r2'),
    'distill_3': ('r2', 'out'),
    'remain_3': ('r2', 'r3'),
    'last': ('r3', 'out'),
}
NECK = ['backbone', 'extra_1', 'extra_2', 'extra_3', 'extra_4']
EDGES = {
    **{f'scene.{name}': edge for name, edge in CELL.items()},
    **{f'noise_removal.{name}': edge for name, edge in CELL.items()},
    **{f'ssd_neck.{edge[1]}': edge for edge in itertools.pairwise(NECK)},
    **{f'ssd_head.loc_{level}': (f'level {level}', 'boxes') for level in range(1, 7)},
    **{f'ssd_head.conf_{level}': (f'level {level}', 'classes') for level in range(1, 7)},
}
ASPP = ['conv_1x1', 'dil_conv_3x3_d6', 'dil_conv_3x3_d12', 'dil_conv_3x3_d18', 'conv_7x7']
PARALLEL = Genotype({f'aspp.branch_{index}': operation for index, operation in enumerate(ASPP)})
PARALLEL_EDGES = {slot: ('in', 'out') for slot in PARALLEL.slots}
# Several edges between two nodes, long ones, and two rows of nodes.
MIXED_EDGES = [('in', 'a'), ('in', 'b'), ('in', 'b'), ('a', 'c'), ('b', 'c'), ('in', 'c'), ('in', 'c')]
MIXED_EDGES += [('c', 'out'), ('c', 'out'), ('c', 'out'), ('a', 'out'), ('b', 'd'), ('d', 'out')]


def space_of(slot):
    return SCENE_SPACE if slot.startswith('scene') else HIGH_LEVEL_SPACE


def detection():
    """The published detector's architecture, with probabilities."""
    slots = Genotype.load('ruas_darkface_vgg16').slots
    probabilities = {}
    for slot, operation in slots.items():
        others = (1 - 0.31) / (len(space_of(slot)) - 1)
        probabilities[slot] = {name: 0.31 if name == operation else others for name in space_of(slot)}
    return Genotype(slots, probabilities)


def records(iterations, slots=('scene.last', 'ssd_neck.extra_1')):
    generator = np.random.default_rng(0)

    def row(slot):
        values = generator.dirichlet(np.ones(len(space_of(slot)))).tolist()
        return dict(zip(space_of(slot), values, strict=True))

    return [{'iter': iteration, 'probabilities': {slot: row(slot) for slot in slots}} for iteration in iterations]


def texts(figure):
    return Counter(text.get_text() for text in figure.findobj(Text) if text.get_text())


def boxes(figure):
    """The nodes as (name, extent in inches)."""
    [axes] = figure.axes
    patches = [patch for patch in axes.patches if type(patch) is FancyBboxPatch]
    found = []
    for patch in patches:
        x, y, width, height = patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height()
        middle = (x + width / 2, y + height / 2)
        [name] = [text.get_text() for text in axes.texts if np.allclose(text.get_position(), middle)]
        found.append((name, np.array([[x, y], [x + width, y + height]])))
    return found


def arrows(figure):
    """The arrows as (source, target, points in inches)."""
    nodes = boxes(figure)

    def at(point):
        distances = [np.maximum(np.maximum(low - point, point - high), 0).max() for _, (low, high) in nodes]
        assert min(distances) < 0.08
        return nodes[int(np.argmin(distances))][0]

    paths = [patch._path_original.vertices for patch in figure.axes[0].patches if isinstance(patch, FancyArrowPatch)]
    return [(at(points[0]), at(points[-1]), points) for points in paths]


@pytest.fixture(scope='module')
def figures():
    mixed = {f'mixed.{index}': SCENE_SPACE[index % 7] for index in range(len(MIXED_EDGES))}
    return {
        'detection': architecture_figure(detection(), EDGES),
        'enhancement': architecture_figure(Genotype.load('ruas_enhance_journal'), EDGES),
        'parallel': architecture_figure(PARALLEL, PARALLEL_EDGES),
        'mixed': architecture_figure(Genotype(mixed), dict(zip(mixed, MIXED_EDGES, strict=True))),
    }


EDGES_OF = {
    'detection': [edge for slot, edge in EDGES.items() if not slot.startswith('noise')],
    'enhancement': [*CELL.values(), *CELL.values()],
    'parallel': list(PARALLEL_EDGES.values()),
    'mixed': MIXED_EDGES,
}


def test_operations_in_the_notation_of_the_paper(figures):
    """What METHOD §4 says was published for detection: cell, neck, loc and conf."""
    published = 'SC, 1-C, 1-RC, 1-RC, 1-RC, 1-RC, 3-RC, 7-C, 7-C, 7-C, 3-C, 7-C, 3-2-DC, 3-2-DC, 3-2-DC, 3-2-DC, 3-C, '
    published += '3-2-DC, 7-C, 7-C, 5-C, 5-2-DC, 7-C'
    found = texts(figures['detection'])
    for label, count in Counter(f'{short} 0.31' for short in published.split(', ')).items():
        assert found[label] == count, label
    nodes = ['in', 'r1', 'r2', 'r3', 'out', *NECK, *(f'level {level}' for level in range(1, 7)), 'boxes', 'classes']
    for text in ['scene', 'ssd_neck', 'ssd_head', *nodes]:
        assert found[text] == 1, text


def test_without_probabilities_the_operation_alone(figures):
    found = texts(figures['parallel'])
    assert all(found[label] == 1 for label in ('1-C', '3-6-DC', '3-12-DC', '3-18-DC', '7-C'))
    one = Genotype({'x.a': 'conv_3x3', 'x.b': 'skip'}, {'x.a': {'conv_3x3': 0.306, 'skip': 0.694}})
    found = texts(architecture_figure(one, {'x.a': ('in', 'out'), 'x.b': ('in', 'out')}))
    assert found['3-C 0.31'] == found['SC'] == 1


@pytest.mark.parametrize('name', EDGES_OF)
def test_arrows_lead_where_the_edges_do_and_through_no_other_node(figures, name):
    drawn = arrows(figures[name])
    assert Counter((source, target) for source, target, _ in drawn) == Counter(EDGES_OF[name])
    nodes = boxes(figures[name])
    for source, target, points in drawn:
        for node, (low, high) in nodes:
            if node not in (source, target):
                assert not ((points > low) & (points < high)).all(axis=1).any(), (source, target, node)


@pytest.mark.parametrize('name', EDGES_OF)
def test_labels_cover_neither_each_other_nor_a_node(figures, name):
    """Measured as matplotlib renders them."""
    figure = figures[name]
    figure.draw_without_rendering()  # places the legend
    [axes] = figure.axes
    page = figure.bbox
    nodes = boxes(figure)
    names = {node for node, _ in nodes}
    labels = [(text.get_text(), Text.get_window_extent(text)) for text in axes.texts if text.get_text() not in names]
    labels += [(text.get_text(), Text.get_window_extent(text)) for text in axes.get_legend().get_texts()]
    areas = [(node, axes.transData.transform(corners)) for node, corners in nodes]
    for text, extent in labels:
        assert page.x0 <= extent.x0 < extent.x1 <= page.x1 and page.y0 <= extent.y0 < extent.y1 <= page.y1, text
        for node, (low, high) in areas:
            assert not extent.overlaps(type(extent)([low, high])), (text, node)
    for (text, extent), (other, area) in itertools.combinations(labels, 2):
        assert not extent.overlaps(area), (text, other)


def test_edges_between_the_same_nodes_are_apart(figures):
    middles = [points[len(points) // 2][1] for _, _, points in arrows(figures['parallel'])]
    assert len(middles) == 5
    assert np.diff(sorted(middles)).min() > 0.2


def test_one_colour_a_kind_of_operation(figures):
    """By the label: notations of one kind share the colour of their legend entry."""
    seen = {}
    for name in ('detection', 'enhancement', 'parallel'):
        figure = figures[name]
        legend = figure.axes[0].get_legend()
        kinds = [text.get_text().split()[0] for text in legend.get_texts()]
        colours = {kind: line.get_color() for kind, line in zip(kinds, legend.get_lines(), strict=True)}
        for text in figure.axes[0].texts:
            short = text.get_text().split()[0]
            kind = {1: '', 2: 'k-', 3: 'k-d-'}[short.count('-') + 1] + short.split('-')[-1]
            if kind in colours:
                assert text.get_color() == colours[kind], text.get_text()
                seen.setdefault(kind, set()).add(text.get_color())
    assert set(seen) == {'SC', 'k-C', 'k-RC', 'k-d-DC', 'k-d-RDC'}
    assert len(set.union(*seen.values())) == 5


def test_undecided_slots_are_dashed_and_questioned(figures):
    slots = {'x.a': 'conv_3x3', 'x.b': 'conv_3x3', 'x.c': 'skip'}
    edges = dict.fromkeys(slots, ('in', 'out'))
    figure = architecture_figure(Genotype(slots, undecided={'x.b': 'noise'}), edges)
    found = texts(figure)
    assert (found['3-C'], found['3-C ?'], found['SC']) == (1, 1, 1)
    styles = [patch.get_linestyle() for patch in figure.axes[0].patches if isinstance(patch, FancyArrowPatch)]
    assert len({str(style) for style in styles}) == 2 and styles[0] == styles[2] != styles[1]
    assert any('undecided' in text for text in found)
    assert not any('undecided' in text or '?' in text for text in texts(figures['detection']))


def test_slot_without_edge():
    edges = {slot: edge for slot, edge in EDGES.items() if slot != 'ssd_head.conf_3'}
    with pytest.raises(ValueError, match=r"slot 'ssd_head.conf_3' is unknown"):
        architecture_figure(detection(), edges)


@pytest.mark.parametrize('edges', [{'x.a': ('p', 'q'), 'x.b': ('q', 'p')}, {'x.a': ('p', 'p'), 'x.b': ('p', 'q')}])
def test_edges_in_a_circle(edges):
    with pytest.raises(ValueError, match="'x' form a cycle: p -> (q -> )?p|'x' form a cycle: q -> p -> q"):
        architecture_figure(Genotype({'x.a': 'skip', 'x.b': 'skip'}), edges)


@pytest.mark.parametrize('iterations', [[100], [0, 50, 100]])
def test_probabilities_as_recorded(iterations):
    history = records(iterations)
    figure = probabilities_figure(history)
    assert [axes.get_title() for axes in figure.axes] == ['scene.last', 'ssd_neck.extra_1']
    for axes in figure.axes:
        slot = axes.get_title()
        assert axes.get_xlabel() == 'iteration'
        assert len(axes.lines) == len(space_of(slot))
        for line, candidate in zip(axes.lines, space_of(slot), strict=True):
            assert list(line.get_xdata()) == iterations
            assert list(line.get_ydata()) == [record['probabilities'][slot][candidate] for record in history]
            assert (line.get_marker() not in ('', 'None', None)) == (len(iterations) == 1)  # a lone point shows too
    for legend, axes in zip(figure.legends, figure.axes, strict=True):  # one for each space
        handles = [(line.get_color(), line.get_linestyle()) for line in legend.get_lines()]
        assert handles == [(line.get_color(), line.get_linestyle()) for line in axes.lines]
        looks = {(line.get_color(), line.get_linestyle(), line._unscaled_dash_pattern[1]) for line in axes.lines}
        assert len(looks) == len(axes.lines)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ['SC', '1-C', '3-C', '1-RC', '3-RC', '3-2-DC', '3-2-RDC']


def test_a_panel_for_each_of_many_slots():
    slots = list(Genotype.load('ruas_darkface_vgg16').slots)
    figure = probabilities_figure(records([0], slots))
    assert [axes.get_title() for axes in figure.axes] == slots
    assert len(figure.legends) == 2
    places = [axes.get_position() for axes in figure.axes]
    assert all(0 <= place.x0 < place.x1 <= 1 and 0 <= place.y0 < place.y1 <= 1 for place in places)
    assert not any(place.overlaps(other) for place, other in itertools.combinations(places, 2))


def test_a_candidate_looks_alike_in_both_spaces():
    scene, neck = probabilities_figure(records([0, 1])).axes
    assert scene.lines[2].get_color() == neck.lines[1].get_color()  # 3-C
    assert scene.lines[5].get_color() == neck.lines[4].get_color()  # 3-2-DC


def test_a_slot_that_is_recorded_later():
    history = [*records([0, 1], ['scene.last']), *records([2, 3])]
    scene, neck = probabilities_figure(history).axes
    assert list(scene.lines[0].get_xdata()) == [0, 1, 2, 3]
    assert list(neck.lines[0].get_xdata()) == [2, 3]


@pytest.mark.parametrize('history', [[], [{'iter': 0, 'probabilities': {}}]])
def test_no_probabilities(history):
    with pytest.raises(ValueError, match='no probabilities'):
        probabilities_figure(history)


def test_probabilities_of_an_unknown_operation():
    with pytest.raises(ValueError, match="unknown operation 'conv_9x9'.*skip"):
        probabilities_figure([{'iter': 0, 'probabilities': {'x.a': {'conv_9x9': 1.0}}}])


def test_files_are_pictures(tmp_path):
    draw_architecture(detection(), EDGES, tmp_path / 'new' / 'cells.png')
    plot_probabilities(records([0, 10]), tmp_path / 'new' / 'search')
    assert sorted(path.name for path in (tmp_path / 'new').iterdir()) == ['cells.png', 'search']  # nothing temporary
    for name in ('cells.png', 'search'):
        with Image.open(tmp_path / 'new' / name) as image:
            assert image.format == 'PNG'
            assert all(400 < side < 4000 for side in image.size), image.size
            pixels = np.asarray(image.convert('L'))
        assert 0.02 < (pixels < 200).mean() < 0.4
        border = np.concatenate([pixels[:4].ravel(), pixels[:, :4].ravel(), pixels[:, -4:].ravel()])
        assert (border == 255).all()
    assert not _pylab_helpers.Gcf.figs  # pyplot keeps no figure alive


def test_format_by_suffix_and_nothing_written_on_failure(tmp_path):
    path = tmp_path / 'cells.pdf'
    draw_architecture(PARALLEL, PARALLEL_EDGES, str(path))
    assert path.read_bytes().startswith(b'%PDF')
    before = path.read_bytes()
    with pytest.raises(ValueError, match='slot'):
        draw_architecture(PARALLEL, {}, path)
    with pytest.raises(ValueError, match='xyz'):
        draw_architecture(PARALLEL, PARALLEL_EDGES, tmp_path / 'cells.xyz')
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
