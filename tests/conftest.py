"""Excludes tests/data from collection: it has scripts for other packages, and doctests are collected everywhere."""

collect_ignore = ["data", "support"]
