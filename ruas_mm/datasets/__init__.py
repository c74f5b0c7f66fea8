"""Data sets in the dark, and the transforms that make them."""
