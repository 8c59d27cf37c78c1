"""Pruning while a network trains: when, where and how filters leave, what each event costs, the run itself."""
