"""Search on LOL's own training set, small crops: cells of one operation, strategies, random choice (Tables III and IV).

Made for two CPU cores. Data: ``{lol}`` holds ``our485/low`` and, for some of the images, ``our485/high``; ``{lists}``
holds ``test.txt`` with the names of those, one a line and without suffix, and ``train.txt`` with all others. Training
sees no ground truth.

The losses and the optimizer are those of the shipped weights (``ruas_a_unpaired.py``); every image goes through the
noise removal (variant ``full``). A difference counts where its interval excludes 0.
"""

metric = 'psnr'
baseline = 'published'
searches = 3
trainings = 1

_losses = {
    'model.scene_loss': dict(fidelity_weight=1.0, smooth_weight=0.05, ambient=0.2, window=15),
    'model.task_loss': dict(type='ruas_mm.SyntheticDenoisingLoss', strength=0.2, power=1.5, correlation=0.0),
}
_crop = (64, 64)
_iters = 300
train = dict(
    config='configs/enhance/ruas_full_lol.py',
    options={
        **_losses,
        'train_cfg.max_iters': _iters,
        'train_cfg.val_interval': _iters,
        'default_hooks.checkpoint.interval': _iters,
        'default_hooks.checkpoint.by_epoch': False,
        'optim_wrapper.optimizer': dict(_delete_=True, type='Adam', lr=1e-2),
        'optim_wrapper.paramwise_cfg': dict(_delete_=True, custom_keys={'noise_removal': dict(lr_mult=0.5)}),
        'param_scheduler': [dict(type='mmengine.CosineAnnealingLR', by_epoch=False, T_max=_iters, eta_min_ratio=0.02)],
        'train_pipeline.1.crop_size': _crop,
        'train_dataloader.dataset.pipeline.1.crop_size': _crop,
        'train_dataloader.batch_size': 8,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'train_dataloader.dataset.data_root': '{lol}/',
        'train_dataloader.dataset.ann_file': '{lists}/train.txt',
        'val_dataloader.dataset.data_root': '{lol}/',
        'val_dataloader.dataset.data_prefix': dict(img_path='our485/low', gt_path='our485/high'),
        'val_dataloader.dataset.ann_file': '{lists}/test.txt',
        'val_dataloader.num_workers': 0,
        'val_dataloader.persistent_workers': False,
    },
)
search = dict(
    config='configs/enhance/ruas_full_lol_search.py',
    options={
        **_losses,
        'optim_wrapper.optimizer': dict(_delete_=True, type='Adam', lr=1e-2),
        'optim_wrapper.paramwise_cfg': dict(_delete_=True, custom_keys={'noise_removal': dict(lr_mult=0.5)}),
        **{
            f'{loader}.{option}': value
            for loader in ('train_dataloader', 'custom_hooks.0.val_dataloader')
            for option, value in {
                'batch_size': 8,
                'num_workers': 0,
                'dataset.dataset.data_root': '{lol}/',
                'dataset.dataset.ann_file': '{lists}/train.txt',
                'dataset.dataset.pipeline.1.crop_size': _crop,
            }.items()
        },
    },
)
random = dict(config='configs/enhance/ruas_full_lol_search.py')


def _search(epochs: int, **hook: object) -> dict:
    """Options of a search: its length (12 iterations an epoch) and those of the hook."""
    hook = dict(scene_iters=5, task_iters=5, interval=2, patience=None, **hook)
    return dict(
        options={
            'train_cfg.max_epochs': epochs,
            'train_cfg.val_interval': epochs + 1,
            'default_hooks.checkpoint.interval': epochs,
            **{f'custom_hooks.0.{option}': value for option, value in hook.items()},
        }
    )


_adam = dict(type='Adam', lr=0.02, betas=(0.5, 0.999), weight_decay=1e-3)
_short = dict(warmup=15, optimizer=_adam)
_decided = dict(order=1, optimizer=dict(_adam, lr='auto'), temperature=(1.0, 0.1), warmup=0.3)
_cells = ('distill_1', 'remain_1', 'distill_2', 'remain_2', 'distill_3', 'remain_3', 'last')
_slots = [f'{module}.{cell}' for module in ('scene', 'noise_removal') for cell in _cells]


def _single(operation: str, title: str) -> dict:
    """Row of an architecture that uses one operation everywhere."""
    options = {'model.genotype': dict(_delete_=True, **dict.fromkeys(_slots, operation))}
    return dict(title=title, train=dict(options=options), searches=1)


rows = dict(
    published=dict(title='published architecture (journal)'),
    random=dict(title='random architectures', genotype='random', searches=4),
    cooperative=dict(title='cooperative', search=_search(20, strategy='cooperative', **_short)),
    independent=dict(title='independent', search=_search(20, strategy='independent', **_short)),
    global_=dict(title='global', search=_search(10, strategy='global', **_short)),
    cooperative_mended=dict(
        title='cooperative, `scene_weights=joint`, first order, `lr=auto`, annealed, warm-up 0.3',
        search=_search(20, strategy='cooperative', scene_weights='joint', **_decided),
    ),
    skip=_single('skip', 'skip everywhere (SC)'),
    conv_1x1=_single('conv_1x1', '1-C everywhere'),
    conv_3x3=_single('conv_3x3', '3-C everywhere'),
    res_conv_1x1=_single('res_conv_1x1', '1-RC everywhere'),
    res_conv_3x3=_single('res_conv_3x3', '3-RC everywhere'),
    dil_conv=_single('dil_conv_3x3_d2', '3-2-DC everywhere'),
    res_dil_conv=_single('res_dil_conv_3x3_d2', '3-2-RDC everywhere'),
    supernet=dict(title='supernet', train=dict(options={'model.genotype': None}), searches=1),
)
