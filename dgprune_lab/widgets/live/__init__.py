"""Runs to watch: training and fine-tuning, live, with stop and resume."""
