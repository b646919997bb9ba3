"""The algorithms whose policy is a Langevin chain."""
