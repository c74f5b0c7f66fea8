"""RUAS_A on MIT-Adobe FiveK, input and expert C (Table V)."""

_base_ = './ruas_a_lol.py'

# --- Often changed -------------------------------------------------------------------------------------------------
data_root = 'data/mit/'  # holds input/, expertC/ and the lists made by tools/dataset_tools/split.py
train_list = 'splits/train.txt'  # the paper: 500 images drawn at random
test_list = 'splits/test.txt'  # … and 100 others
train_folder = 'input'
test_folders = dict(img_path='input', gt_path='expertC')

train_dataloader = dict(dataset=dict(data_root=data_root, ann_file=train_list, data_prefix=dict(img_path=train_folder)))
val_dataloader = dict(dataset=dict(data_root=data_root, ann_file=test_list, data_prefix=test_folders))
test_dataloader = val_dataloader

# --- Sometimes changed ---------------------------------------------------------------------------------------------
scene_lr = 1e-6  # these images are less dark than LOL's and are overexposed sooner

optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(scene_module=dict(lr_mult=scene_lr / _base_.base_lr))))
