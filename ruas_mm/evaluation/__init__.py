"""Evaluation metrics with documented protocols."""

from ruas_mm.evaluation.dark_face_metric import DarkFaceMetric

__all__ = ['DarkFaceMetric']
