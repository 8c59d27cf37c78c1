"""The `dgprune-lab` commands, one file each."""
