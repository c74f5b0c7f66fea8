"""The cooperative search inside an ordinary mmengine run."""

from ruas_mm.engine.architect import Architect, SearchError
from ruas_mm.engine.cooperative_search_hook import CooperativeSearchHook

__all__ = ['Architect', 'CooperativeSearchHook', 'SearchError']
