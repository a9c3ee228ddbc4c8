"""LLM2Vec-Gen: the embedding of a text is that of the model's own answer, which is not written."""
