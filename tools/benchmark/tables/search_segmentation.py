"""Search on CamVid, darkened: strategies and random choice.

Made for two CPU cores. Data: ``{camvid}`` with ``train``, ``trainannot``, ``val`` and ``valannot``; ``{lists}`` holds
``train.txt`` of ``tools/dataset_tools/camvid_dusk.py``. Every frame is darkened, those of the test by fixed seeds; to
save time after it has been made small.

A difference counts where its interval excludes 0.
"""

metric = 'mIoU'
average_last = 2
baseline = 'plain'
searches = 3
trainings = 1

_epochs = 6
_size = (144, 108)
_synthesis = dict(type='ruas_mm.LowLightSynthesis')
_resize = dict(type='Resize', scale=_size, keep_ratio=False)
_train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ruas_mm.LoadSegLabels'),
    _resize,
    _synthesis,
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmseg.PackSegInputs'),
]
_test_pipeline = [
    dict(type='LoadImageFromFile'),
    _resize,
    dict(_synthesis, seed=0),
    dict(type='ruas_mm.LoadSegLabels'),  # after Resize: metrics want the original pixels
    dict(type='mmseg.PackSegInputs'),
]
_loader = dict(num_workers=0, persistent_workers=False)
train = dict(
    config='configs/segmentation/ruas_deeplab_camvid.py',
    options={
        'train_cfg': dict(_delete_=True, by_epoch=True, max_epochs=_epochs, val_interval=1, val_begin=_epochs - 1),
        'param_scheduler.1.T_max': _epochs,
        'default_hooks.checkpoint.interval': _epochs,
        'train_dataloader': dict(
            **_loader,
            dataset=dict(data_root='{camvid}/', ann_file='{lists}/train.txt', pipeline=_train_pipeline),
        ),
        'val_dataloader': dict(**_loader, dataset=dict(data_root='{camvid}/', pipeline=_test_pipeline)),
    },
)
_part = dict(
    num_workers=0,
    dataset=dict(dataset=dict(data_root='{camvid}/', ann_file='{lists}/train.txt', pipeline=_train_pipeline)),
)
search = dict(
    config='configs/segmentation/ruas_deeplab_camvid_search.py',
    options={'train_dataloader': _part, 'custom_hooks.0.val_dataloader': _part},
)
random = dict(config='configs/segmentation/ruas_deeplab_camvid_search.py')


def _search(epochs: int, model: dict | None = None, **hook: object) -> dict:
    """Options of a search: its length (43 iterations an epoch), those of the model and those of the hook."""
    return dict(
        options={
            'train_cfg.max_epochs': epochs,
            'train_cfg.val_interval': epochs + 1,
            'param_scheduler.0.T_max': epochs,
            'default_hooks.checkpoint.interval': epochs,
            **(model or {}),
            **{f'custom_hooks.0.{option}': value for option, value in hook.items()},
        }
    )


_adam = dict(type='Adam', lr='auto', betas=(0.5, 0.999), weight_decay=5e-4)
_decided = dict(order=1, optimizer=_adam, temperature=(1.0, 0.1), warmup=0.3)
_normalised = {'model.decode_head.normalise': True}

rows = dict(
    plain=dict(
        title='plain DeepLabV3+',
        train=dict(config='configs/segmentation/deeplab_camvid.py'),
        searches=4,
    ),
    published=dict(title='RUAS-DeepLab, architecture of the config', searches=4),
    random=dict(title='random architectures', genotype='random', searches=5),
    cooperative=dict(title='cooperative, settings of `short_search`', search=_search(6, strategy='cooperative')),
    global_=dict(title='global, settings of `short_search`', search=_search(3, strategy='global')),
    global_normalised=dict(
        title='global, normalised kernels, first order, `lr=auto`, annealed, warm-up 0.3',
        search=_search(5, _normalised, strategy='global', **_decided),
    ),
    cooperative_mended=dict(
        title='cooperative, all of that and `scene_weights=joint`',
        search=_search(5, _normalised, strategy='cooperative', scene_weights='joint', **_decided),
    ),
)
