"""Helpers that belong to no single part of ruas_mm."""
