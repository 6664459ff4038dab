"""Where steps run: NumPy arrays on the host, and arrays on NVIDIA GPUs."""
