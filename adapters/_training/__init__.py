"""What recipes share: the budget, what is trained, the loop, stages, data sources and cards."""
