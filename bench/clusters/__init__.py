"""Clusters of any texts by their embeddings, with key words, examples and a map."""

from bench.clusters.grouping import Cluster, Grouping, agreement, cluster_texts
from bench.clusters.texts import Texts, read_texts

__all__ = ["Cluster", "Grouping", "Texts", "agreement", "cluster_texts", "read_texts"]
