"""Reproducible comparisons: runs, their measures, tables and figures."""
