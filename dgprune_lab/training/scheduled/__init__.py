"""Pruning while a network trains: when, where and how filters are removed, the cost of each event, the run itself."""
