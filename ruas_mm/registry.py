"""Child registries of mmengine's root registries (scope ``ruas_mm``), whose components are imported lazily.

``COMPONENTS`` lists all components that can be used in configs. The module of a component is imported when the
component is first requested, so that a missing or broken host library disables only the components that need it.
"""

from __future__ import annotations

import importlib
from typing import Any

from mmengine import registry as root

# registry -> public name -> module that defines it
COMPONENTS: dict[str, dict[str, str]] = {
    'model': {
        'SceneModule': 'ruas_mm.modules',
        'NoiseRemoval': 'ruas_mm.modules',
        'NoiseEstimator': 'ruas_mm.modules',
        'SceneLoss': 'ruas_mm.losses',
        'RTVLoss': 'ruas_mm.losses',
        'NeighbourhoodSmoothLoss': 'ruas_mm.losses',
        'DenoisingLoss': 'ruas_mm.losses',
        'SyntheticDenoisingLoss': 'ruas_mm.losses',
        'NoiseEstimationLoss': 'ruas_mm.losses',
        'RUAS': 'ruas_mm.models.enhance',
        'RUASDataPreprocessor': 'ruas_mm.models.enhance',
        'RUASEditor': 'ruas_mm.models.enhance.editor',
        'RUASEditDataPreprocessor': 'ruas_mm.models.enhance.editor',
        'ScenePretrainer': 'ruas_mm.models',
        'RUASDetDataPreprocessor': 'ruas_mm.models.detection',
        'RUASSingleStageDetector': 'ruas_mm.models.detection',
        'SearchableSSDNeck': 'ruas_mm.models.detection',
        'SearchableSSDHead': 'ruas_mm.models.detection',
        'SSDHead': 'ruas_mm.models.detection',
        'SSDVGG': 'ruas_mm.models.detection',
        'DetTTAModel': 'ruas_mm.models.detection',
        'RUASSegDataPreprocessor': 'ruas_mm.models.segmentation',
        'RUASEncoderDecoder': 'ruas_mm.models.segmentation',
        'SearchableDeepLabHead': 'ruas_mm.models.segmentation',
        'SegTTAModel': 'ruas_mm.models.segmentation',
    },
    'dataset': {
        'DarkFaceDataset': 'ruas_mm.datasets.detection',
        'ExDarkDataset': 'ruas_mm.datasets.detection',
        'ACDCNightDataset': 'ruas_mm.datasets.segmentation',
        'CamVidDataset': 'ruas_mm.datasets.segmentation',
        'LowLightDataset': 'ruas_mm.datasets.enhance',
        'split_dataset': 'ruas_mm.datasets',
    },
    'transform': {
        'LoadGroundTruth': 'ruas_mm.datasets.enhance',
        'LoadSegLabels': 'ruas_mm.datasets.segmentation',
        'LowLightSynthesis': 'ruas_mm.datasets.transforms',
        'PackEnhanceInputs': 'ruas_mm.datasets.enhance',
        'RandomCrop': 'ruas_mm.datasets.enhance',
    },
    'metric': {
        'DarkFaceMetric': 'ruas_mm.evaluation',
        'DumpPredictions': 'ruas_mm.evaluation.dump',
        'ImageQuality': 'ruas_mm.evaluation.image_quality',
    },
    'hook': {
        'BasicVisualizationHook': 'ruas_mm.visualization.mmagic_hook',
        'CooperativeSearchHook': 'ruas_mm.engine',
        'LoadedWeightsHook': 'ruas_mm.engine',
        'EnhanceVisualizationHook': 'ruas_mm.visualization.enhancement_hook',
    },
    'optimizer': {
        'ExponentiatedGradient': 'ruas_mm.search',
    },
    'visualizer': {
        'RUASDetVisualizer': 'ruas_mm.visualization.detection',
        'RUASSegVisualizer': 'ruas_mm.visualization.segmentation',
        'RUASEnhanceVisualizer': 'ruas_mm.visualization.enhancement',
    },
}

# Modules of this package that need a host library, and the host module that they import.
_HOSTS = {
    'ruas_mm.models.detection': 'mmdet.models',
    'ruas_mm.models.segmentation': 'mmseg.models',
    'ruas_mm.models.enhance.editor': 'mmagic.models',
    'ruas_mm.datasets.detection': 'mmdet.datasets',
    'ruas_mm.datasets.segmentation': 'mmseg.datasets',
    'ruas_mm.visualization.detection': 'mmdet.visualization',
    'ruas_mm.visualization.segmentation': 'mmseg.visualization',
    'ruas_mm.visualization.mmagic_hook': 'mmagic.engine',
    'ruas_mm.datasets.enhance': 'mmcv.transforms',
    'ruas_mm.visualization.enhancement': 'mmcv',
}


def load_component(name: str, module: str) -> Any:
    """Import a component.

    Args:
        name (str): Public name of the component with its package, such as ``ruas_mm.SceneModule``.
        module (str): Dotted path of the module that defines it.

    Returns:
        Any: The class (or function) itself.

    Raises:
        ImportError: If it cannot be imported; the message names the component and the cause, and the host library if
            that is missing or broken.
    """
    host = _HOSTS.get(module)
    try:
        if host is not None:
            importlib.import_module(host)
            host = None  # the host works, so it is not the cause of an error below
        return getattr(importlib.import_module(module), name.rpartition('.')[2])
    except (
        Exception
    ) as error:  # broken packages raise various errors, such as ImportError or AssertionError on versions
        what = f'needs {host.partition(".")[0]}, which cannot be imported' if host else 'cannot be imported'
        raise ImportError(f'{name} {what}: {type(error).__name__}: {error}') from error


class Registry(root.Registry):
    """An mmengine registry that imports a component of ``COMPONENTS`` when it is first requested.

    Names without a scope that are registered neither in this package nor in mmengine are looked up in the default scope
    of the run. This is necessary because mmengine assigns the scope ``ruas_mm`` to every dict inherited from a config
    of this package (``_base_ = 'ruas_mm::…'``), even if the type in it is replaced by a type of the host library.
    """

    def get(self, key: str) -> Any:
        """Return the component registered as ``key``, imported if necessary; see ``mmengine.Registry.get``."""
        scope, name = self.split_scope_key(key)
        module = COMPONENTS.get(self.name, {}).get(name)
        if module and scope in (None, self.scope) and name not in self._module_dict:
            self.register_module(name=name, module=load_component(f'{self.scope}.{name}', module))
        found = super().get(key)
        if found is None and scope is None:
            host = _host_scope(self.scope)
            found = super().get(f'{host}.{name}') if host else None
        return found


def _host_scope(own: str) -> str | None:
    """Return the innermost default scope that is not ``own``."""
    scopes = [instance.scope_name for instance in root.DefaultScope._instance_dict.values()]
    return next((scope for scope in reversed(scopes) if scope != own), None)


def _child(parent: root.Registry) -> Registry:
    # Without a location mmengine would look for `ruas_mm.utils.register_all_modules`.
    return Registry(parent.name, parent=parent, scope='ruas_mm', locations=['ruas_mm.registry'])


# Every registry of mmengine has a child here, including those without components of this package: configs that inherit
# from this package (`_base_ = 'ruas_mm::…'`) are built in the scope `ruas_mm`, and mmengine warns about each registry
# without this scope.
_CHILDREN = {name: _child(parent) for name, parent in vars(root).items() if isinstance(parent, root.Registry)}

MODELS = _CHILDREN['MODELS']
DATASETS = _CHILDREN['DATASETS']
TRANSFORMS = _CHILDREN['TRANSFORMS']
METRICS = _CHILDREN['METRICS']
HOOKS = _CHILDREN['HOOKS']
OPTIMIZERS = _CHILDREN['OPTIMIZERS']
VISUALIZERS = _CHILDREN['VISUALIZERS']
