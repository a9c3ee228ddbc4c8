"""LLM2Vec-Gen: a text is embedded as the model's own answer to it, which is never generated."""
