"""tools/export_onnx.py as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ruas_mm.models.enhance import RUAS

onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnx')

ROOT = Path(__file__).parents[2]
CONFIG = dict(variant='A', noise_estimator=dict(channels=4))


def run(*arguments, cwd):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, str(ROOT / 'tools' / 'export_onnx.py'), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False)


def save(path, **options):
    """Write a checkpoint whose weights do something; return its model."""
    torch.manual_seed(0)
    config = {**CONFIG, **options}
    model = RUAS(**config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        if model.noise_estimator is not None:
            # Without a bias, theta of what is smooth and of what is noisy differ by the noise.
            for layer in list(model.noise_estimator)[::2]:
                layer.bias.zero_()
    meta = {'model': dict(type='ruas_mm.RUAS', **config)}
    torch.save({'meta': meta, 'state_dict': model.state_dict()}, path)
    return model


def images(*shape):
    return 0.4 * torch.rand(shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def assert_same(file, model, y):
    """Run the file; return what it gave by name."""
    session = onnxruntime.InferenceSession(file)
    names = [output.name for output in session.get_outputs()]
    assert [entry.name for entry in session.get_inputs()] == ['image']
    results = dict(zip(names, session.run(None, {'image': y.numpy()}), strict=True))
    expected = model.enhance(y)
    for name, result in results.items():
        np.testing.assert_allclose(result, getattr(expected, name).numpy(), rtol=0, atol=1e-5)
    return results


def one_sentence(done, *words):
    assert done.returncode == 1
    assert 'Traceback' not in done.stdout + done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith('Error: ')]
    for word in words:
        assert str(word) in error


def test_each_image_is_decided_by_its_own_score(tmp_path):
    """One file, images on both sides of epsilon, alone and in one batch."""
    y = images(2, 3, 14, 19)
    y[0] *= 0.1
    probe = save(tmp_path / 'a.pth', border=4)
    with torch.no_grad():
        scores = probe.enhance(y).noise_score
    epsilon = scores.mean().item()
    quiet, noisy = scores.argsort().tolist()
    assert scores[noisy] > 1.1 * epsilon > 1.2 * scores[quiet], 'a test of nothing'
    model = save(tmp_path / 'a.pth', epsilon=epsilon, border=4)
    done = run('a.pth', 'a.onnx', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'variant A' in done.stdout and 'noise_score' in done.stdout
    file = tmp_path / 'a.onnx'
    with torch.no_grad():
        feature = model.enhance(y).feature.numpy()
    for batch in (y, y.flip(0), y[:1], y[1:]):
        results = assert_same(file, model, batch)
        assert results['noise_score'].shape == (len(batch),)
    removed = np.abs(assert_same(file, model, y)['enhanced'] - feature).max(axis=(1, 2, 3))
    assert removed[quiet] < 1e-5
    assert removed[noisy] > 1e-2
    for size in ((1, 1, 1), (3, 1, 6), (1, 7, 1), (2, 23, 40)):
        assert_same(file, model, images(size[0], 3, *size[1:]))


@pytest.mark.parametrize('border', [0, 20])
def test_always_removed(tmp_path, border):
    model = save(tmp_path / 'v.pth', variant='full', border=border)
    done = run('v.pth', 'new/v.onnx', '--opset', 13, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for size in ((1, 1, 1), (2, 11, 30)):
        results = assert_same(tmp_path / 'new' / 'v.onnx', model, images(size[0], 3, *size[1:]))
        assert list(results) == ['enhanced', 'illumination']


def test_less_than_the_checkpoint_has(tmp_path):
    scene_module = save(tmp_path / 'a.pth').scene_module
    done = run('a.pth', 's.onnx', '--variant', 'S', '--stages', 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(tmp_path / 's.onnx')
    for size in ((1, 1, 1), (2, 9, 8)):
        y = images(size[0], 3, *size[1:])
        with torch.no_grad():
            scene = scene_module(y)
        enhanced, illumination = session.run(None, {'image': y.numpy()})
        np.testing.assert_allclose(enhanced, scene.features[0].numpy(), rtol=0, atol=1e-5)
        np.testing.assert_allclose(illumination, scene.illuminations[0].numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(('trained', 'chosen'), [(1 / 3, None), (1, 0.25)])
def test_lower_resolutions(tmp_path, trained, chosen):
    """The checkpoint's, or another one."""
    model = save(tmp_path / 'v.pth', variant='full', border=5, scene_module=dict(resolution=trained))
    flags = [] if chosen is None else ['--resolution', chosen]
    done = run('v.pth', 'v.onnx', '--opset', 13, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model.scene_module.resolution = chosen or trained
    for size in ((1, 1, 1), (3, 1, 6), (2, 23, 40)):
        assert_same(tmp_path / 'v.onnx', model, images(size[0], 3, *size[1:]))


def test_mistakes(tmp_path):
    save(tmp_path / 'a.pth', variant='S')
    save(tmp_path / 'open.pth', variant='S', genotype=None)
    (tmp_path / 'file').write_text('')
    one_sentence(run('nowhere.pth', 'x.onnx', cwd=tmp_path), 'nowhere.pth')
    one_sentence(run('open.pth', 'x.onnx', cwd=tmp_path), 'still searchable')
    one_sentence(run('a.pth', tmp_path, cwd=tmp_path), tmp_path, 'folder')
    one_sentence(run('a.pth', 'file/x.onnx', cwd=tmp_path), 'file/x.onnx', 'cannot be written')
    save(tmp_path / 'e.pth', variant='S', exposure='auto')
    one_sentence(run('e.pth', 'x.onnx', cwd=tmp_path), 'exposure', 'cannot be part of the graph')
    one_sentence(run('a.pth', 'x.onnx', '--resolution', 0.4, cwd=tmp_path), 'resolution', '1/2', '0.4')
    assert not (tmp_path / 'x.onnx').exists()


def test_without_onnx(tmp_path):
    """As if it were not installed."""
    save(tmp_path / 'a.pth', variant='S')
    code = (
        'import importlib.util as u, runpy, sys; find = u.find_spec; '
        "u.find_spec = lambda name, *rest: None if name == 'onnx' else find(name, *rest); "
        f"sys.argv = ['export_onnx.py', 'a.pth', 'x.onnx']; tool = {str(ROOT / 'tools/export_onnx.py')!r}; "
        "runpy.run_path(tool, run_name='__main__')"
    )
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    one_sentence(done, 'onnx', 'pip install')
