"""Pictures of a test: what was dark, what became of it, and what it should be."""

import mmcv
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

pytest.importorskip('mmcv')

from ruas_mm import EnhanceVisualizationHook, RUASEnhanceVisualizer

HEIGHT, WIDTH = 40, 110  # wide enough for the titles
COLUMN = WIDTH + 4


@pytest.fixture
def visualizer(request):
    return RUASEnhanceVisualizer(name=request.node.name)


def image(rgb):
    return np.tile(np.array(rgb, np.uint8), (HEIGHT, WIDTH, 1))


def sample(truth=True, made=True, img_id='1.png'):
    data_sample = BaseDataElement(metainfo=dict(img_id=img_id))

    def plain(*rgb):
        return torch.tensor(rgb).view(3, 1, 1).expand(3, HEIGHT, WIDTH)

    if made:
        data_sample.enhanced = plain(1.0, 0.6, 0.0)
        data_sample.illumination = plain(0.2, 0.2, 0.4)
    if truth:
        data_sample.gt = plain(250, 150, 3).byte()
    return data_sample


def colours(file):
    """RGB of each picture of a strip, at the bottom where no title is."""
    strip = mmcv.imread(str(file), channel_order='rgb')
    assert strip.shape[0] > HEIGHT and strip.shape[1] % COLUMN == 0
    return [tuple(strip[-10, left + WIDTH // 2]) for left in range(0, strip.shape[1], COLUMN)]


INPUT, ENHANCED, ILLUMINATION, TRUTH = (9, 5, 1), (255, 153, 0), (51, 51, 102), (250, 150, 3)


@pytest.mark.parametrize(
    ('drawn', 'options', 'expected'),
    [
        (sample(), {}, [INPUT, ENHANCED, ILLUMINATION, TRUTH]),
        (sample(truth=False), {}, [INPUT, ENHANCED, ILLUMINATION]),
        (sample(made=False), {}, [INPUT, TRUTH]),
        (sample(), dict(draw_gt=False), [INPUT, ENHANCED, ILLUMINATION]),
        (sample(), dict(draw_pred=False), [INPUT, TRUTH]),
        (None, {}, [INPUT]),
    ],
)
def test_pictures_and_their_order(visualizer, tmp_path, drawn, options, expected):
    visualizer.add_datasample('x', image(INPUT), drawn, out_file=str(tmp_path / 'x.png'), **options)
    assert colours(tmp_path / 'x.png') == expected


def test_backends_get_the_strip(request, tmp_path):
    visualizer = RUASEnhanceVisualizer(
        name=request.node.name, vis_backends=[dict(type='LocalVisBackend')], save_dir=str(tmp_path)
    )
    visualizer.add_datasample('night', image(INPUT), sample(), step=3)
    (file,) = tmp_path.rglob('*.png')
    assert file.name == 'night_3.png'
    assert len(colours(file)) == 4


class Runner:
    def __init__(self, visualizer):
        self.visualizer = visualizer


def run(hook, visualizer, names):
    """One batch of a test: the model got BGR."""
    bgr = torch.from_numpy(image(INPUT[::-1])).permute(2, 0, 1)
    samples = [sample(img_id=name) for name in names]
    hook.after_test_iter(Runner(visualizer), 0, {'inputs': [bgr] * len(names)}, samples)


def test_hook_keeps_names_and_folders(visualizer, tmp_path):
    """Images of one name in two folders do not overwrite each other."""
    hook = EnhanceVisualizationHook(draw=True, test_out_dir=str(tmp_path))
    run(hook, visualizer, ['a/1.png', 'b/1.png'])
    files = sorted(tmp_path.rglob('*.png'))
    assert [file.relative_to(tmp_path).as_posix() for file in files] == ['a/1.png', 'b/1.png']
    assert all(colours(file) == [INPUT, ENHANCED, ILLUMINATION, TRUTH] for file in files)


def test_hook_draws_nothing_unless_asked(visualizer, tmp_path):
    run(EnhanceVisualizationHook(test_out_dir=str(tmp_path)), visualizer, ['1.png'])
    assert not list(tmp_path.iterdir())
