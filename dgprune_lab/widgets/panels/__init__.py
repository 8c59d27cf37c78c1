"""Panels of the explorer: the protocol, and one file per question."""
