"""What pytest must leave alone: doctests are looked for in every module, and data has scripts for other packages."""

collect_ignore = ["data", "support"]
