"""Array handling: checks, nested structures, memory layout, state formats. It knows no optimizer."""
