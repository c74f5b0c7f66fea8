"""The cooperative search inside an ordinary mmengine run."""

from ruas_mm.engine.cooperative_search_hook import CooperativeSearchHook, SearchError

__all__ = ['CooperativeSearchHook', 'SearchError']
