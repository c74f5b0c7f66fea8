"""The cooperative search inside an ordinary mmengine run."""

from ruas_mm.engine.architect import Architect, SearchError
from ruas_mm.engine.architecture_cost import ArchitectureCost
from ruas_mm.engine.cooperative_search_hook import CooperativeSearchHook
from ruas_mm.engine.loaded_weights_hook import LoadedWeightsHook

__all__ = ['Architect', 'ArchitectureCost', 'CooperativeSearchHook', 'LoadedWeightsHook', 'SearchError']
