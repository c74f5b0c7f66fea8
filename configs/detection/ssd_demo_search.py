"""Search of neck and head alone, without scene module, on the embedded demo data (Table VIII, "searched TM")."""

_base_ = './ruas_ssd_demo_search.py'

model = dict(data_preprocessor=dict(scene_module=None), scene_loss=None)
