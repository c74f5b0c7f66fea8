"""Pictures that answer: what did the segmentor see, and what did it make of it."""

import mmcv
import numpy as np
import pytest
import torch

pytest.importorskip('mmseg.visualization')

from mmengine.structures import PixelData
from mmseg.engine.hooks import SegVisualizationHook
from mmseg.structures import SegDataSample

from ruas_mm import RUASSegVisualizer
from ruas_mm.registry import VISUALIZERS
from ruas_mm.visualization import segmentation

HEIGHT, WIDTH = 48, 140  # wide enough for the titles
TITLES = ['input', 'scene feature', 'illumination', 'prediction', 'ground truth']
CLASSES, PALETTE = ('road', 'sky'), [(100, 0, 200), (0, 200, 100)]


def make(request, **options):
    made = RUASSegVisualizer(name=request.node.name, alpha=0.5, **options)
    made.dataset_meta = {'classes': CLASSES, 'palette': PALETTE}
    return made


@pytest.fixture
def visualizer(request):
    return make(request)


@pytest.fixture
def titles(monkeypatch):
    """The panels of each strip drawn, by title and in order."""
    seen = []

    def spy(panels, *arguments, strip=segmentation.side_by_side):
        seen.append({title: image.copy() for title, image in panels.items()})
        return strip(panels, *arguments)

    monkeypatch.setattr(segmentation, 'side_by_side', spy)
    return seen


def image(value=10):
    return np.full((HEIGHT, WIDTH, 3), value, np.uint8)


def sample(scene=True, truth=True, found=True, size=(HEIGHT, WIDTH)):
    """Sky above, road below, and at the bottom of the ground truth a strip that is ignored."""
    made = SegDataSample()
    if scene:
        made.scene = PixelData(
            observation=torch.full((3, *size), 0.2),
            feature=torch.full((3, *size), 0.6, requires_grad=True),
            illumination=torch.linspace(0, 1, size[0]).view(1, -1, 1).expand(3, *size),
        )
    labels = (torch.arange(HEIGHT) < HEIGHT // 2).long().view(1, -1, 1).expand(1, HEIGHT, WIDTH).clone()
    if found:
        made.pred_sem_seg = PixelData(data=labels.clone())
    if truth:
        labels[:, -8:] = 255
        made.gt_sem_seg = PixelData(data=labels)
    return made


def blend(background, label):
    return (np.array(PALETTE[label]) + background) // 2


@pytest.mark.parametrize('scene', [True, False])
@pytest.mark.parametrize('truth', [True, False])
@pytest.mark.parametrize('found', [True, False])
def test_panels_and_their_order(visualizer, titles, tmp_path, scene, truth, found):
    file = tmp_path / 'strip.png'
    visualizer.add_datasample('x', image(), sample(scene, truth, found), out_file=str(file))
    left_out = {*([] if scene else TITLES[1:3]), *([] if found else TITLES[3:4]), *([] if truth else TITLES[4:])}
    expected = [title for title in TITLES if title not in left_out]
    (panels,) = titles
    assert list(panels) == expected
    assert all(panel.shape == (HEIGHT, WIDTH, 3) and panel.dtype == np.uint8 for panel in panels.values())
    strip = mmcv.imread(str(file))
    assert strip.shape[1] == len(expected) * (WIDTH + 4)
    assert strip.shape[0] > HEIGHT  # the titles


def test_what_is_not_wanted_is_not_drawn(visualizer, titles, tmp_path):
    visualizer.add_datasample('x', image(), sample(), draw_gt=False, out_file=str(tmp_path / 'a.png'))
    visualizer.add_datasample('x', image(), sample(), draw_pred=False, out_file=str(tmp_path / 'b.png'))
    visualizer.add_datasample('x', image(), None, out_file=str(tmp_path / 'c.png'))
    assert [list(panels) for panels in titles] == [TITLES[:4], [*TITLES[:3], TITLES[4]], TITLES[:1]]


def test_the_input_is_what_the_model_saw(visualizer, titles, tmp_path):
    """A pipeline may darken the image that the file holds."""
    visualizer.add_datasample('x', image(200), sample(), out_file=str(tmp_path / 'a.png'))
    visualizer.add_datasample('x', image(200), sample(scene=False), out_file=str(tmp_path / 'b.png'))
    assert [panels['input'][0, 0, 0] for panels in titles] == [51, 200]


@pytest.mark.parametrize(
    ('options', 'scene', 'background'),
    [({}, True, 153), ({'labels_on': 'input'}, True, 51), ({}, False, 10), ({'labels_on': 'input'}, False, 10)],
)
def test_labels_on(request, titles, tmp_path, options, scene, background):
    visualizer = make(request, **options)
    visualizer.add_datasample('x', image(), sample(scene), out_file=str(tmp_path / 'x.png'), with_labels=False)
    (panels,) = titles
    for title in ('prediction', 'ground truth'):
        assert (panels[title][: HEIGHT // 2] == blend(background, 1)).all()
        assert (panels[title][HEIGHT // 2 : -8] == blend(background, 0)).all()
    assert (panels['prediction'][-8:] == blend(background, 0)).all()
    assert (panels['ground truth'][-8:] == background).all()  # ignored


@pytest.mark.parametrize('with_labels', [True, None, False])
def test_names_of_the_classes(visualizer, titles, tmp_path, with_labels):
    visualizer.add_datasample('x', image(), sample(), out_file=str(tmp_path / 'x.png'), with_labels=with_labels)
    written = (titles[0]['prediction'][: HEIGHT // 2] != blend(153, 1)).any()
    assert written == bool(with_labels)


def test_all_sizes_become_the_picture_s(visualizer, titles, tmp_path):
    """The model sees a resized image, and whoever resizes the labels too gets them back as sharp as they were."""
    small = sample(truth=False, size=(24, 70))
    small.pred_sem_seg = PixelData(data=small.pred_sem_seg.data[:, ::2, ::2])
    visualizer.add_datasample('x', image(), small, out_file=str(tmp_path / 'x.png'), with_labels=False)
    (panels,) = titles
    assert all(panel.shape == (HEIGHT, WIDTH, 3) for panel in panels.values())
    illumination = panels['illumination'][:, 0, 0]
    assert illumination[0] == 0 and illumination[-1] == 255
    assert (panels['prediction'][: HEIGHT // 2] == blend(153, 1)).all()
    assert (panels['prediction'][HEIGHT // 2 :] == blend(153, 0)).all()


def test_colours_keep_their_order(visualizer, titles, tmp_path):
    """The file shows red where the scene is red: RGB in, and no second swap on the way out."""
    red = sample(truth=False, found=False)
    red.scene.feature = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1).expand(3, HEIGHT, WIDTH)
    file = tmp_path / 'red.png'
    visualizer.add_datasample('x', image(), red, out_file=str(file))
    assert (titles[0]['scene feature'][5, 5] == (255, 0, 0)).all()
    strip = mmcv.imread(str(file), channel_order='rgb')
    assert (strip[-5, WIDTH + 4 + 60] == (255, 0, 0)).all()


def test_a_float_image_is_clipped(visualizer, titles, tmp_path):
    visualizer.add_datasample('x', image().astype(np.float32) * 40 - 1, None, out_file=str(tmp_path / 'x.png'))
    assert (titles[0]['input'] == 255).all()


class Runner:
    iter = 3


def test_mmseg_s_hook_draws_with_it(request, tmp_path):
    """The hook reads the image from its file and hands the strip to the backends."""
    backends = [dict(type='LocalVisBackend')]
    options = dict(name=request.node.name, vis_backends=backends, save_dir=str(tmp_path / 'out'))
    VISUALIZERS.build(dict(type='ruas_mm.RUASSegVisualizer', **options))
    mmcv.imwrite(image(), str(tmp_path / 'night.png'))
    output = sample()
    output.set_metainfo({'img_path': str(tmp_path / 'night.png')})
    hook = SegVisualizationHook(draw=True, interval=1)
    hook.after_test_iter(Runner(), 0, {}, [output])
    (file,) = (tmp_path / 'out').rglob('*.png')
    assert file.name == 'test_night.png_3.png'
    assert mmcv.imread(str(file)).shape[1] == 5 * (WIDTH + 4)


def test_bad_option(request):
    with pytest.raises(ValueError, match="labels_on of RUASSegVisualizer must be 'enhanced' or 'input', got 'both'"):
        RUASSegVisualizer(name=request.node.name, labels_on='both')
