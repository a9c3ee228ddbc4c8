"""DINO: training pairs written by a language model."""
