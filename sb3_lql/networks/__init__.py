"""Critics and their gradients."""
