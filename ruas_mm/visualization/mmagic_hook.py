"""mmagic's visualization hook."""

# mmagic registers this class in another scope, so configs that write `mmagic.BasicVisualizationHook` cannot find it.
from mmagic.engine.hooks import BasicVisualizationHook

__all__ = ['BasicVisualizationHook']
