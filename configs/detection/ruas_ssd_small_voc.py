"""RUAS-SSD on one's own dark data in VOC format, with a small backbone that a laptop can train from scratch."""

_base_ = './ruas_ssd_demo.py'

# --- Often changed -------------------------------------------------------------------------------------------------
data_root = 'data/voc/'  # holds train.txt, val.txt (image names without suffix) and the two folders below
image_folder = 'JPEGImages'
label_folder = 'Annotations'
classes = ('face',)
batch_size = 8
num_workers = 2
max_epochs = 16
base_lr = 2e-3

# --- Sometimes changed ---------------------------------------------------------------------------------------------
image_size = (224, 224)
pipelines = dict(train=_base_.train_pipeline, test=_base_.test_pipeline)
pipelines['train'][3].scale = image_size
pipelines['test'][1].scale = image_size
pipelines['test'][1].keep_ratio = False

model = dict(
    data_preprocessor=dict(scene_module=dict(warm_start='rectified', genotype='ruas_enhance_journal')),
    bbox_head=dict(num_classes=len(classes)),
)
dataset = dict(
    _delete_=True,
    type='mmdet.VOCDataset',
    data_root=data_root,
    metainfo=dict(classes=classes),
    img_subdir=image_folder,
    ann_subdir=label_folder,
    data_prefix=dict(sub_data_root=''),
)
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    dataset=dict(
        **dataset,
        ann_file='train.txt',
        filter_cfg=dict(filter_empty_gt=True, min_size=8),
        pipeline=pipelines['train'],
    ),
)
val_dataloader = dict(
    num_workers=num_workers,
    dataset=dict(**dataset, ann_file='val.txt', test_mode=True, pipeline=pipelines['test']),
)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='mmdet.VOCMetric', metric='mAP', eval_mode='area')
test_evaluator = val_evaluator

# --- Rarely changed ------------------------------------------------------------------------------------------------
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=base_lr))
param_scheduler = [
    dict(type='mmengine.LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='mmengine.CosineAnnealingLR', by_epoch=True, T_max=max_epochs, convert_to_iter_based=True, eta_min=1e-5),
]
