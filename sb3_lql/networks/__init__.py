"""Critics, denoisers and their layers."""
