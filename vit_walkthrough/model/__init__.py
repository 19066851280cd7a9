"""What the reader builds: one file a stage, from the config to the whole Vision Transformer."""
