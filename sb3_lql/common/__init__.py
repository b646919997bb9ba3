"""Shared by all packages: replay buffers, files, memory and argument checks."""
