"""Figures: attention maps, training curves, detections, and precision-recall curves."""
