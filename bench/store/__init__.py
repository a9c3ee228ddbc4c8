"""A folder of results: its cells, who computes them, and the folder as one file."""

from bench.store.folder import Store, read, read_whole, slug

__all__ = ["Store", "read", "read_whole", "slug"]
