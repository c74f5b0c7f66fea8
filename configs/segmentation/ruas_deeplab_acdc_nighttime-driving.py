"""Test on Nighttime Driving what was trained on ACDC night."""

_base_ = './ruas_deeplab_acdc.py'

data_root = 'data/NighttimeDrivingTest/'
test_pipeline = _base_.test_pipeline
tta_pipeline = _base_.tta_pipeline
for loader in (test_pipeline[2], tta_pipeline[1].transforms[2][0]):
    loader.num_classes = _base_.num_classes  # not provided by mmseg's data sets
del loader
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmseg.NightDrivingDataset',
        data_root=data_root,
        data_prefix=dict(img_path='leftImg8bit/test/night', seg_map_path='gtCoarse_daytime_trainvaltest/test/night'),
        test_mode=True,
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
