"""Search on the embedded demo data at 160x120: strategies, modules and random choice (Tables IV and VIII).

Made for two CPU cores. Data: ``tools/make_demo_data.py detection --test 240 --out data/demo240``, four times the test
images of the demo, and the metric is averaged over the last three epochs, so that seeds differ less.

A difference counts where its interval excludes 0. Every row trains for the same number of iterations. A search has 120
iterations in ``global``, and 240 where the detector learns in half of them, so that it takes as many steps.
"""

metric = 'voc_area_ap50'
average_last = 3
baseline = 'plain'
searches = 3
trainings = 1

_size = (160, 120)
_epochs = 8
_root = '{demo}/darkface/'
train = dict(
    config='configs/detection/ruas_ssd_demo.py',
    options={
        'train_cfg': dict(_delete_=True, by_epoch=True, max_epochs=_epochs, val_interval=1, val_begin=_epochs - 2),
        'param_scheduler.1.T_max': _epochs,
        'train_dataloader.dataset.data_root': _root,
        'train_dataloader.dataset.pipeline.3.scale': _size,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'val_dataloader.dataset.data_root': _root,
        'val_dataloader.dataset.pipeline.1.scale': _size,
        'val_dataloader.num_workers': 0,
        'val_dataloader.persistent_workers': False,
        'default_hooks.checkpoint.interval': _epochs,
    },
)


def _search(epochs: int, **hook: object) -> dict:
    """Options of a search: its length and those of the hook."""
    return dict(
        options={
            'train_cfg.max_epochs': epochs,
            'train_cfg.val_interval': epochs + 1,
            'param_scheduler.0.T_max': epochs,
            'default_hooks.checkpoint.interval': epochs,
            **{f'custom_hooks.0.{option}': value for option, value in hook.items()},
        }
    )


_adam = dict(type='Adam', lr='auto', betas=(0.5, 0.999), weight_decay=5e-4)
_decided = dict(order=1, optimizer=_adam, temperature=(1.0, 0.1), warmup=0.3)
_normalised = {'model.neck.normalise': True, 'model.bbox_head.normalise': True}


def _with(search: dict, **options: object) -> dict:
    return dict(options={**search['options'], **options})


search = dict(
    config='configs/detection/ruas_ssd_demo_search.py',
    options={
        'train_dataloader.dataset.dataset.data_root': _root,
        'train_dataloader.dataset.dataset.pipeline.3.scale': _size,
        'train_dataloader.num_workers': 0,
        'custom_hooks.0.val_dataloader.dataset.dataset.data_root': _root,
        'custom_hooks.0.val_dataloader.dataset.dataset.pipeline.3.scale': _size,
        'custom_hooks.0.val_dataloader.num_workers': 0,
    },
)
random = dict(config='configs/detection/ruas_ssd_demo_search.py')

rows = dict(
    plain=dict(title='plain SSD', train=dict(config='configs/detection/ssd_demo.py'), searches=4),
    published=dict(title='published architecture', searches=4),
    random=dict(title='random architectures', genotype='random', searches=6),
    cooperative=dict(title='cooperative, settings of `short_search`', search=_search(8, strategy='cooperative')),
    global_=dict(title='global, settings of `short_search`', search=_search(4, strategy='global')),
    global_normalised=dict(
        title='global, normalised kernels, first order, `lr=auto`, annealed, warm-up 0.3',
        search=_with(_search(6, strategy='global', **_decided), **_normalised),
    ),
    cooperative_mended=dict(
        title='cooperative, all of that and `scene_weights=joint`',
        search=_with(_search(6, strategy='cooperative', scene_weights='joint', **_decided), **_normalised),
    ),
    independent=dict(title='independent, settings of `short_search`', search=_search(8, strategy='independent')),
)
