"""LLM2Comp: memory tokens that compress a text."""
