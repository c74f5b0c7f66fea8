"""Pictures of what the models see."""
