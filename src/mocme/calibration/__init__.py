"""Calibration: the probability that a score stands for, fitted on validation."""
