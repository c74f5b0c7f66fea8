"""Search of RUAS on MIT-Adobe FiveK: scene module and noise removal, cooperatively (paper §4.2, Algorithm 1)."""

_base_ = './ruas_full_lol_search.py'

# --- Often changed -------------------------------------------------------------------------------------------------
data_root = 'data/mit/'  # holds input/ and the list made by tools/dataset_tools/split.py
train_list = 'splits/train.txt'  # the paper: 500 images drawn at random
train_folder = 'input'

part = dict(dataset=dict(data_root=data_root, ann_file=train_list, data_prefix=dict(img_path=train_folder)))
train_dataloader = dict(dataset=part)
custom_hooks = _base_.custom_hooks
custom_hooks[0].val_dataloader.dataset.dataset.update(part['dataset'])
