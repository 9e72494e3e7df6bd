"""Calibration: fitting on validation which probability a score stands for."""
