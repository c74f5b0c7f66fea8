"""Hierarchical training, second step: all of RUAS-SSD with the detector's loss, from the scene module of the first."""

_base_ = './ruas_ssd_darkface.py'

# --- Often changed -------------------------------------------------------------------------------------------------
load_from = 'work_dirs/ruas_ssd_darkface_pretrain'  # work directory, or checkpoint, of ruas_ssd_darkface_pretrain.py
