"""RUAS-SSD on DARK FACE, trained end to end with the detector's loss plus lambda times the scene loss (paper §3.2)."""

_base_ = './ruas_ssd_darkface.py'

# --- Often changed -------------------------------------------------------------------------------------------------
scene_loss_weight = 1.0  # lambda

model = dict(scene_loss=dict(smoothness='neighbourhood'), scene_loss_weight=scene_loss_weight)
