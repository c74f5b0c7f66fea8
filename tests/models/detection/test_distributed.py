"""The scene module runs before DDP's forward, in the data preprocessor: its gradients must be averaged all the same."""

import gc
import sys

import pytest
import torch
import torch.distributed as dist

pytest.importorskip('mmdet.models')

IMAGES = torch.randint(0, 80, (2, 3, 12, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def build_model():
    from mmengine.registry import init_default_scope

    from ruas_mm.registry import MODELS

    init_default_scope('mmdet')
    torch.manual_seed(0)
    preprocessor = dict(type='ruas_mm.RUASDetDataPreprocessor', scene_module=dict(stages=2), bgr_to_rgb=True)
    model = MODELS.build(dict(type='ruas_mm.ScenePretrainer', data_preprocessor=preprocessor, scene_loss=dict()))
    # Something for DDP's own forward: the loss also goes through a layer behind the data preprocessor.
    model.layer = torch.nn.Conv2d(3, 1, 1)
    forward = model.forward
    model.forward = lambda inputs, data_samples=None, mode='tensor': {
        **forward(inputs, data_samples, mode),
        'loss_task': model.layer(inputs / 255).square().mean(),
    }
    return model


def batch(images):
    from mmdet.structures import DetDataSample

    return dict(
        inputs=[image.clone() for image in images],
        data_samples=[DetDataSample(metainfo=dict(img_shape=(12, 16))) for _ in images],
    )


def gradients(model, images):
    data = model.data_preprocessor(batch(images), True)
    losses = model(**data, mode='loss')
    sum(losses.values()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def step_of_this_rank(out):
    """What torchrun starts: one step on this rank's image; writes by how much each weight moved."""
    from mmengine.model import MMDistributedDataParallel
    from mmengine.optim import OptimWrapper

    rank = dist.get_rank()
    model = build_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrapped = MMDistributedDataParallel(model)
    wrapped.train_step(batch(IMAGES[rank : rank + 1]), OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0)))
    torch.save({name: before[name] - p.detach() for name, p in model.named_parameters()}, f'{out}/{rank}.pt')


def test_two_ranks_take_the_step_of_the_whole_batch(torchrun, tmp_path):
    expected = gradients(build_model(), IMAGES)
    done = torchrun(__file__, tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        steps = torch.load(tmp_path / f'{rank}.pt')
        assert set(steps) == set(expected)
        for name, gradient in expected.items():
            torch.testing.assert_close(steps[name], gradient, rtol=1e-3, atol=1e-5, msg=f'{name} on rank {rank}')


if __name__ == '__main__':
    torch.set_num_threads(1)
    dist.init_process_group('gloo')
    step_of_this_rank(sys.argv[1])
    gc.collect()  # the wrapped model must go first, or its end waits for gloo's threads with the lock that they need
    dist.destroy_process_group()
