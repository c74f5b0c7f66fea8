"""RUAS-SSD on ExDark: scene module and SSD512, its neck and head searchable, trained end to end."""

_base_ = './ruas_ssd512_voc.py'

# --- Often changed -------------------------------------------------------------------------------------------------
data_root = 'data/exdark/'  # holds ExDark/, ExDark_Annno/ and imageclasslist.txt, as released
# The paper: 5200 and 1200 images drawn at random by tools/dataset_tools/split.py.
train_split = dict(ann_file='splits/train.txt')
test_split = dict(ann_file='splits/test.txt')
# The authors of ExDark: dict(subset='train') or dict(subset=('train', 'val')), and dict(subset='test').

# --- Sometimes changed ---------------------------------------------------------------------------------------------
classes = (
    *('Bicycle', 'Boat', 'Bottle', 'Bus', 'Car', 'Cat'),
    *('Chair', 'Cup', 'Dog', 'Motorbike', 'People', 'Table'),
)

model = dict(bbox_head=dict(num_classes=len(classes)))
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[0].color_type = 'color_ignore_orientation'  # boxes count the pixels as stored
test_pipeline[0].color_type = 'color_ignore_orientation'
test_pipeline[3].meta_keys = (*test_pipeline[3].meta_keys, 'light', 'place')
dataset = dict(
    _delete_=True,
    type='ruas_mm.ExDarkDataset',
    data_root=data_root,
    metainfo=dict(classes=classes),
    data_prefix=dict(img_path='ExDark', label_path='ExDark_Annno'),
)
train_dataloader = dict(
    dataset=dict(**dataset, **train_split, filter_cfg=dict(filter_empty_gt=True, min_size=8), pipeline=train_pipeline)
)
val_dataloader = dict(dataset=dict(**dataset, **test_split, test_mode=True, pipeline=test_pipeline))
test_dataloader = val_dataloader

# --- Rarely changed ------------------------------------------------------------------------------------------------
# Optimizer, schedule and metric (VOC's area AP at IoU 0.5, with a table of the classes) are those of the base.
