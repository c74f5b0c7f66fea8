"""mmagic's hook that draws."""

# mmagic registers it outside its own scope, where configs that name their scopes do not find it.
from mmagic.engine.hooks import BasicVisualizationHook

__all__ = ['BasicVisualizationHook']
