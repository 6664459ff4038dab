"""Where steps run: on the host for NumPy arrays, or on an NVIDIA GPU. It knows no optimizer class."""
