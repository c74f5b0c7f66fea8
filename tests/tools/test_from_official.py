"""The authors' checkpoints become ours: both releases' layouts, and one sentence for everything else."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint

from ruas_mm.models.enhance import RUAS
from ruas_mm.search import Genotype

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools/model_converters/from_official.py'
DATA = ROOT / '../shared/data/official_ruas'

needs_data = pytest.mark.skipif(
    not (DATA / 'lol.pt').is_file(),
    reason="the authors' weights and pictures (../shared/data/official_ruas) are absent",
)

EDGES = ('c1_d', 'c1_r', 'c2_d', 'c2_r', 'c3_d', 'c3_r', 'c4')
# METHOD §4: kernels of o1 … o7, 0 where a skip connection has no weights.
SCENE = (0, 1, 3, 3, 3, 0, 3)
REMOVAL = {'journal': (1, 3, 3, 1, 3, 3, 3), 'conference': (1, 1, 3, 0, 1, 1, 0)}


def convert(src, dst):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, str(TOOL), str(src), str(dst)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def official(release):
    """Random weights under the authors' names, of the facts of METHOD §2-5 alone."""
    generator = torch.Generator().manual_seed(0)
    weights = {}

    def add(name, outside, inside, kernel):
        weights[f'{name}.weight'] = 0.1 * torch.randn(outside, inside, kernel, kernel, generator=generator)
        weights[f'{name}.bias'] = 0.1 * torch.randn(outside, generator=generator)

    def add_cell(name, channels, kernels):
        for edge, kernel in zip(EDGES, kernels, strict=True):
            if kernel:
                add(f'{name}.{edge}.op', channels, channels, kernel)
        add(f'{name}.c5', channels, 4 * channels, 1)

    for stage in range(3):
        add_cell(f'enhance_net.iems.{stage}.cell', 3, SCENE)
    add('denoise_net.stem', 6, 3, 3)
    for cell in range(3):
        add_cell(f'denoise_net.nrms.{cell}', 6, REMOVAL[release])
    add('denoise_net.activate.0', 3, 6, 3)
    if release == 'journal':
        for index, (inside, outside) in enumerate([(3, 32), (32, 32), (32, 32), (32, 32), (32, 3)]):
            add(f'estimation.estimation.{2 * index}', outside, inside, 3)
    return weights


def check_files(dst, variant, release, t_min):
    """What is beside each other fits together, and says where it is from."""
    model = RUAS(variant, dst.with_suffix('.genotype.json'), scene_module=dict(t_min=t_min))
    checkpoint = load_checkpoint(model, str(dst), map_location='cpu', strict=True)
    genotype = Genotype.load(dst.with_suffix('.genotype.json'))
    assert genotype.slots == Genotype.load(f'ruas_enhance_{release}').slots
    for origin in (checkpoint['meta']['origin'], genotype.origin['what']):
        assert 'published by the authors' in origin and release in origin
    built = MODELS.build(checkpoint['meta']['model'])
    built.load_state_dict(checkpoint['state_dict'], strict=True)
    assert built.variant == variant and built.scene_module.t_min == t_min
    return model


@pytest.mark.parametrize(('release', 'variant', 't_min'), [('journal', 'A', 1e-4), ('conference', 'full', 1e-3)])
def test_each_weight_finds_its_place(tmp_path, release, variant, t_min):
    weights, dst = official(release), tmp_path / 'new' / 'lol.pth'
    torch.save(weights, tmp_path / 'lol.pt')
    done = convert(tmp_path / 'lol.pt', dst)
    assert done.returncode == 0, done.stderr
    assert f'{variant!r} from lol.pt' in done.stdout and release in done.stdout
    assert sorted(path.name for path in dst.parent.iterdir()) == ['lol.genotype.json', 'lol.pth']
    model = check_files(dst, variant, release, t_min)
    assert sum(value.numel() for value in weights.values()) == sum(p.numel() for p in model.parameters())

    def same(convolution, name):
        return torch.equal(convolution.weight, weights[f'{name}.weight']) and torch.equal(
            convolution.bias, weights[f'{name}.bias']
        )

    for cells, name, kernels in (
        (model.scene_module.cells, 'enhance_net.iems.{}.cell', SCENE),
        (model.noise_removal.cells, 'denoise_net.nrms.{}', REMOVAL[release]),
    ):
        for index, cell in enumerate(cells):
            assert same(cell.fuse, name.format(index) + '.c5')
            for operation, edge, kernel in zip(cell.operations, EDGES, kernels, strict=True):
                assert not kernel or same(operation, f'{name.format(index)}.{edge}.op')
    assert same(model.noise_removal.stem, 'denoise_net.stem')
    assert same(model.noise_removal.to_noise, 'denoise_net.activate.0')
    for index in (0, 2, 4, 6, 8) if variant == 'A' else ():
        assert same(model.noise_estimator[index], f'estimation.estimation.{index}')


def read(path):
    """A picture as mmcv loads it, BGR."""
    return cv2.imread(str(path), cv2.IMREAD_COLOR)


@needs_data
def test_published_pictures(tmp_path):
    """The converted model as a user runs it; one image below their noise threshold, one above it."""
    done = convert(DATA / 'lol.pt', tmp_path / 'lol.pth')
    assert done.returncode == 0, done.stderr
    model = check_files(tmp_path / 'lol.pth', 'A', 'journal', 1e-4).eval()
    names = ['00091.png', '00451.png']
    images = [torch.from_numpy(read(DATA / 'lol/input' / name)).permute(2, 0, 1) for name in names]
    with torch.no_grad():
        results = model.test_step({'inputs': images})
    assert results[0].noise_score < 0.035 < results[1].noise_score
    assert torch.equal(results[0].enhanced, results[0].feature)
    assert not torch.equal(results[1].enhanced, results[1].feature)
    for name, sample in zip(names, results, strict=True):
        ours = (sample.enhanced.flip(0) * 255).permute(1, 2, 0).numpy()
        published = read(DATA / 'lol/published_result' / name).astype(np.float32)
        # They truncate when they write 8 bits: the true value lies in [p, p + 1), give or take the rounding of float32.
        assert (ours - published).min() > -1e-3 and (ours - published).max() < 1 + 1e-3
        assert abs(np.trunc(ours) - published).max() <= 1
        assert (np.trunc(ours) == published).mean() > 0.999


def changed(release='journal', remove=(), add=None):
    weights = {key: value for key, value in official(release).items() if key not in remove}
    return {**weights, **(add or {})}


class Call:
    """Pickles as a call that makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (lambda: changed(remove=['denoise_net.stem.bias']), 'nothing in it becomes noise_removal.stem.bias'),
        (lambda: changed(remove=['enhance_net.iems.1.cell.c4.op.bias']), 'scene_module.cells.1.operations.6.bias'),
        (lambda: changed(add={'estimation.extra': torch.ones(1)}), 'estimation.extra is no weight of RUAS'),
        (lambda: changed(add={'enhance_net.iems.0.cell.c9.bias': torch.ones(3)}), 'c9.bias is no weight'),
        (lambda: changed(add={'enhance_net.iems.0.cell.c1_d.op.bias': torch.ones(3)}), 'c1_d.op.bias is no weight'),
        (lambda: changed(add={'enhance_net.iems.0.cell.c5.op.bias': torch.ones(3)}), 'c5.op.bias is no weight'),
        (
            lambda: changed(add={'denoise_net.stem.bias': torch.ones(7)}),
            'denoise_net.stem.bias has shape (7,), not (6,)',
        ),
        (
            lambda: {k: v for k, v in official('journal').items() if not k.startswith('estimation.')},
            'denoise_net.nrms.0.c1_r.op.weight has shape (6, 6, 3, 3), not (6, 6, 1, 1) as the 2021 conference release',
        ),
        (lambda: {k: v for k, v in official('conference').items() if 'denoise' not in k}, 'noise_removal.stem.weight'),
        (lambda: {'state_dict': official('journal')}, 'it is not a mapping of names to weights'),
        (lambda: RUAS().state_dict(), 'no weight is named enhance_net.*'),
        (lambda: [torch.ones(1)], 'it is not a mapping of names to weights'),
        (lambda: {}, 'it is not a mapping of names to weights'),
        (lambda: torch.ones(3), 'it is not a mapping of names to weights'),
    ],
)
def test_everything_else(tmp_path, content, words):
    torch.save(content(), tmp_path / 'src.pt')
    message = failure_of(tmp_path / 'src.pt', tmp_path / 'dst.pth')
    assert words in message and 'src.pt is not one of' in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ['src.pt']


def failure_of(src, dst):
    """Run the tool in this process, as a new one each time would be slow; return the one sentence it ends with."""
    spec = importlib.util.spec_from_file_location('from_official', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as error:
        patch.setattr(sys, 'argv', [str(TOOL), str(src), str(dst)])
        tool.main()
    message = str(error.value)
    assert message.startswith('from_official.py: ') and '\n' not in message
    return message


def test_no_code_of_the_file_is_run(tmp_path):
    torch.save({**official('journal'), 'x': Call(tmp_path / 'made')}, tmp_path / 'src.pt')
    done = convert(tmp_path / 'src.pt', tmp_path / 'dst.pth')
    assert done.returncode == 1
    assert 'mkdir, which could run code' in done.stderr and 'Traceback' not in done.stderr
    assert not (tmp_path / 'made').exists() and not (tmp_path / 'dst.pth').exists()


def test_other_files(tmp_path):
    (tmp_path / 'empty.pt').touch()
    (tmp_path / 'text.pt').write_text('weights')
    src = tmp_path / 'src.pt'
    torch.save(official('conference'), src)
    (tmp_path / 'cut.pt').write_bytes(src.read_bytes()[:-400])
    before = src.read_bytes()
    for name, words in (
        ('empty.pt', 'is empty'),
        ('text.pt', 'is not a checkpoint'),
        ('cut.pt', 'is damaged'),
        ('none.pt', 'does not exist'),
        ('', 'is a folder'),
    ):
        assert words in failure_of(tmp_path / name, tmp_path / 'dst.pth')
        assert not (tmp_path / 'dst.pth').exists()
    assert 'is a folder' in failure_of(src, tmp_path)
    assert 'would take the place' in failure_of(src, src)
    assert src.read_bytes() == before
    assert 'empty.pt' in failure_of(src, tmp_path / 'empty.pt' / 'dst.pth')  # its folder is a file
