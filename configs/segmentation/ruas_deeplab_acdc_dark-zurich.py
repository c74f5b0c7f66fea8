"""Test on Dark Zurich what was trained on ACDC night."""

_base_ = './ruas_deeplab_acdc.py'

data_root = 'data/dark_zurich/'
test_pipeline = _base_.test_pipeline
tta_pipeline = _base_.tta_pipeline
for loader in (test_pipeline[2], tta_pipeline[1].transforms[2][0]):
    loader.num_classes = _base_.num_classes  # not provided by mmseg's data sets
del loader
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmseg.DarkZurichDataset',
        data_root=data_root,
        data_prefix=dict(img_path='rgb_anon/val/night', seg_map_path='gt/val/night'),
        test_mode=True,
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
