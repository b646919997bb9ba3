"""Saving and loading models, replay buffers and checkpoints."""
