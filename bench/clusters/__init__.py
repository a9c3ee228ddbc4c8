"""Readable clusters: any texts grouped by their embeddings, and what each group is about, in words and in a picture."""

from bench.clusters.grouping import Cluster, Grouping, agreement, cluster_texts
from bench.clusters.texts import Texts, read_texts

__all__ = ["Cluster", "Grouping", "Texts", "agreement", "cluster_texts", "read_texts"]
