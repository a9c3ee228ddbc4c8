"""A benchmark harness that compares recipes for turning a language model into a text encoder."""
