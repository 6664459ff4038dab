"""Arrays as the package needs them: checks, structures, memory layout, state formats. It knows no optimizer."""
