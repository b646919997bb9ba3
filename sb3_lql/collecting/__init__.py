"""Stepping environments and storing transitions."""
