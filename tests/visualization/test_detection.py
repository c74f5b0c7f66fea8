"""Pictures that answer: what did the detector see, and what did it find."""

import mmcv
import numpy as np
import pytest
import torch

pytest.importorskip('mmdet.visualization')

from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData

from ruas_mm import RUASDetVisualizer
from ruas_mm.visualization import detection

HEIGHT, WIDTH = 48, 120  # wide enough for the titles
TITLES = ['input', 'scene feature', 'illumination', 'detections', 'ground truth']
BOX = torch.tensor([[30.0, 10.0, 90.0, 40.0]])


@pytest.fixture
def visualizer(request):
    made = RUASDetVisualizer(name=request.node.name)
    made.dataset_meta = {'classes': ('face',), 'palette': [(220, 20, 60)]}
    return made


@pytest.fixture
def titles(monkeypatch):
    """The panels of each strip drawn, by title and in order."""
    seen = []

    def spy(panels, *arguments, strip=detection.side_by_side):
        seen.append({title: image.copy() for title, image in panels.items()})
        return strip(panels, *arguments)

    monkeypatch.setattr(detection, 'side_by_side', spy)
    return seen


def image(value=10):
    return np.full((HEIGHT, WIDTH, 3), value, np.uint8)


def sample(scene=True, truth=True, found=True, size=(HEIGHT, WIDTH)):
    made = DetDataSample()
    if scene:
        made.scene = PixelData(
            observation=torch.full((3, *size), 0.04),
            feature=torch.full((3, *size), 0.6, requires_grad=True),
            illumination=torch.linspace(0, 1, size[0]).view(1, -1, 1).expand(3, *size),
        )
    if truth:
        made.gt_instances = InstanceData(bboxes=BOX, labels=torch.tensor([0]))
    if found:
        made.pred_instances = InstanceData(bboxes=BOX, labels=torch.tensor([0]), scores=torch.tensor([0.9]))
    return made


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
    assert (panels['input'] == 10).all()  # the picture as it was taken stays untouched


def test_what_is_not_wanted_is_not_drawn(visualizer, titles, tmp_path):
    visualizer.add_datasample('x', image(), sample(), draw_gt=False, out_file=str(tmp_path / 'a.png'))
    visualizer.add_datasample('x', image(), sample(), draw_pred=False, out_file=str(tmp_path / 'b.png'))
    visualizer.add_datasample('x', image(), None, out_file=str(tmp_path / 'c.png'))
    assert [list(panels) for panels in titles] == [TITLES[:4], [*TITLES[:3], TITLES[4]], TITLES[:1]]


@pytest.mark.parametrize(('boxes_on', 'background'), [('enhanced', 153), ('input', 10)])
def test_boxes_on(request, titles, tmp_path, boxes_on, background):
    visualizer = RUASDetVisualizer(name=request.node.name, boxes_on=boxes_on)
    visualizer.add_datasample('x', image(), sample(), out_file=str(tmp_path / 'x.png'))
    for title in ('detections', 'ground truth'):
        panel = titles[0][title]
        assert (panel[0, 0] == background).all()
        assert (panel[8:42, 28:92] != background).any()  # a box was drawn


def test_boxes_on_the_input_where_there_is_no_scene(visualizer, titles, tmp_path):
    visualizer.add_datasample('x', image(), sample(scene=False), out_file=str(tmp_path / 'x.png'))
    assert (titles[0]['detections'][0, 0] == 10).all()


def test_scene_is_resized_to_the_picture(visualizer, titles, tmp_path):
    """Detectors see a resized image; the strip has the size of the picture as it was taken."""
    visualizer.add_datasample('x', image(), sample(size=(24, 30)), out_file=str(tmp_path / 'x.png'))
    (panels,) = titles
    illumination = panels['illumination']
    assert illumination.shape == (HEIGHT, WIDTH, 3)
    assert (np.diff(illumination[:, 0, 0].astype(int)) >= 0).all()  # dark above, bright below, as in the map
    assert illumination[0].max() == 0 and illumination[-1].min() == 255
    assert (panels['scene feature'] == 153).all()


def test_colours_keep_their_order(visualizer, titles, tmp_path):
    """The file shows red where the scene is red: RGB in, and no second swap on the way out."""
    red = sample(truth=False, found=False)
    red.scene.feature = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1).expand(3, HEIGHT, WIDTH)
    file = tmp_path / 'red.png'
    visualizer.add_datasample('x', image(), red, out_file=str(file))
    assert (titles[0]['scene feature'][5, 5] == (255, 0, 0)).all()
    strip = mmcv.imread(str(file), channel_order='rgb')
    assert (strip[-5, WIDTH + 4 + 60] == (255, 0, 0)).all()


def test_score_threshold(visualizer, titles, tmp_path):
    for threshold in (0.3, 0.95):
        visualizer.add_datasample(
            'x', image(), sample(truth=False), out_file=str(tmp_path / 'x.png'), pred_score_thr=threshold
        )
    drawn, empty = (panels['detections'] for panels in titles)
    assert (drawn != 153).any()
    assert (empty == 153).all()


def test_a_float_image_is_clipped(visualizer, titles, tmp_path):
    visualizer.add_datasample('x', image().astype(np.float32) * 40 - 1, None, out_file=str(tmp_path / 'x.png'))
    assert (titles[0]['input'] == 255).all()


def test_backends_get_the_strip(request, tmp_path):
    """Without a file the strip goes to the backends, under its name and step."""
    visualizer = RUASDetVisualizer(
        name=request.node.name, vis_backends=[dict(type='LocalVisBackend')], save_dir=str(tmp_path)
    )
    visualizer.add_datasample('night', image(), sample(), step=3)
    (file,) = tmp_path.rglob('*.png')
    assert file.name == 'night_3.png'
    assert mmcv.imread(str(file)).shape[1] == 5 * (WIDTH + 4)


def test_bad_option(request):
    with pytest.raises(ValueError, match="boxes_on of RUASDetVisualizer must be 'enhanced' or 'input', got 'both'"):
        RUASDetVisualizer(name=request.node.name, boxes_on='both')
