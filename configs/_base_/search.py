# The cooperative search with the paper's settings; a search config adds val_dataloader, and overrides what it wants:
# custom_hooks = [dict(_base_.search, val_dataloader=…)].

search = dict(
    type='ruas_mm.CooperativeSearchHook',
    # --- Often changed ---------------------------------------------------------------------------------------------
    strategy='cooperative',  # or 'independent', 'global' (Table IV)
    beta=1.0,  # weight of the task's loss in the scene module's architecture gradient (Eq. 7)
    # --- Sometimes changed -----------------------------------------------------------------------------------------
    scene_weights='scene',  # the paper; 'joint': train all weights in every iteration, alternate the architecture alone
    order=2,  # 1: first-order approximation, about three times faster
    scene_iters=10,  # iterations of SM …
    task_iters=10,  # … and TM a round
    warmup=500,  # iterations of each phase before its first architecture step
    interval=10,  # rounds between two records: log, TensorBoard, genotype.json
    patience=20,  # intervals without change that end the search before max_epochs
    tolerance=0.01,  # largest change of an architecture parameter that is none
    # --- Rarely changed --------------------------------------------------------------------------------------------
    optimizer=dict(type='Adam', lr=3e-4, betas=(0.5, 0.999), weight_decay=5e-4),  # the paper
)
# For a few hundred steps instead of tens of thousands: larger ones, and an earlier start.
short_search = dict(
    search,
    scene_iters=5,
    task_iters=5,
    warmup=15,
    interval=1,
    patience=None,
    optimizer=dict(type='Adam', lr=0.02, betas=(0.5, 0.999), weight_decay=5e-4),
)
# For a few hundred steps too, and made to decide: used with normalise=True in neck, head or decode_head (docs/search.md).
decided_search = dict(
    short_search,
    strategy='global',
    order=1,
    warmup=0.3,  # the share of the iterations that trains the weights alone
    temperature=(1.0, 0.1),
    optimizer=dict(type='Adam', lr='auto', betas=(0.5, 0.999), weight_decay=5e-4),
)
find_unused_parameters = True  # several processes: each phase trains a part of the model
