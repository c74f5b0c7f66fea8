"""RUAS_A on LOL with mmagic's pipelines, data sets, metrics, loops and visualizer: ruas_a_lol.py in its terms."""

_base_ = './ruas_a_lol.py'

# --- Often changed -------------------------------------------------------------------------------------------------
# data_root, batch_size, max_iters, learning rates, genotype, …: as in ruas_a_lol.py
test_prefix = dict(img='eval15/low', gt='eval15/high')

# --- Sometimes changed ---------------------------------------------------------------------------------------------
model = dict(
    type='ruas_mm.RUASEditor',
    data_preprocessor=dict(type='ruas_mm.RUASEditDataPreprocessor'),  # or mmagic.DataPreprocessor
)

train_pipeline = [
    dict(type='mmagic.LoadImageFromFile', key='img'),
    dict(type='mmagic.Crop', keys=['img'], crop_size=_base_.crop_size),
    dict(type='mmagic.Flip', keys=['img'], flip_ratio=0.5),
    dict(type='mmagic.PackInputs'),
]
test_pipeline = [
    dict(type='mmagic.LoadImageFromFile', key='img'),
    dict(type='mmagic.LoadImageFromFile', key='gt'),
    dict(type='mmagic.PackInputs'),
]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmagic.BasicImageDataset',
        data_root=_base_.data_root,
        data_prefix=dict(img=_base_.train_folder),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmagic.BasicImageDataset',
        data_root=_base_.data_root,
        data_prefix=test_prefix,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
# Of the values before they are rounded to 8 bits; SSIM with Gaussian windows.
val_evaluator = dict(
    _delete_=True, type='mmagic.Evaluator', metrics=[dict(type='mmagic.PSNR'), dict(type='mmagic.SSIM')]
)
test_evaluator = val_evaluator

# --- Rarely changed ------------------------------------------------------------------------------------------------
val_cfg = dict(type='mmagic.MultiValLoop')
test_cfg = dict(type='mmagic.MultiTestLoop')
default_scope = 'mmagic'
default_hooks = dict(
    # mmagic's; tools/test.py --show-dir turns it on.
    visualization=dict(_delete_=True, type='ruas_mm.BasicVisualizationHook', on_val=False, on_test=False),
)
visualizer = dict(
    _delete_=True,
    type='mmagic.ConcatImageVisualizer',
    vis_backends=_base_.vis_backends,
    fn_key='img_path',
    img_keys=['input', 'illumination', 'pred_img', 'gt_img'],
    bgr2rgb=True,
)
