"""Crops: contrastive training on two crops of one text; see ``encoder.py``."""
