"""The explorer: the slider, its measurements, and the host of its panels."""
