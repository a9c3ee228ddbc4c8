"""Encoders without a method: simple baselines and a reference model."""
