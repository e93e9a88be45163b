"""Public checkpoints of the embedded suite; each has a JSON record of how it was made."""
