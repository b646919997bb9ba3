"""Algorithms compared on tasks over seeds: trainings, their results, statistics, figures and the report."""
