"""What pytest must leave alone: doctests are looked for in every module, and the golden script needs torch."""

collect_ignore = ["goldens"]
