"""The shapes of the parameters of real models, computed from the models' definitions."""


def gpt2_small():
    """GPT-2 small (Radford et al. 2019): 148 arrays, 124,439,808 elements."""
    width = 768
    norm = [(width,), (width,)]
    block = [*norm, (width, 3 * width), (3 * width,), (width, width), (width,)]
    block += [*norm, (width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [(50_257, width), (1_024, width), *block * 12, *norm]


def small_transformer():
    """GPT-2's structure, narrower and with 8,192 words: 148 arrays, 24,437,760 elements."""
    width = 384
    norm = [(width,), (width,)]
    block = [*norm, (width, 3 * width), (3 * width,), (width, width), (width,)]
    block += [*norm, (width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [(8_192, width), (256, width), *block * 12, *norm]


def efficientnet_b1():
    """EfficientNet-B1 (arXiv:1905.11946), a small convolutional network: 301 arrays, 7,794,184 elements."""

    def convolution(into, out, kernel, groups=1):
        """The kernel, and scale and shift of the normalization after it."""
        return [(out, into // groups, kernel, kernel), (out,), (out,)]

    arrays = convolution(3, 32, 3)
    into = 32
    # Expansion, channels, blocks, kernel.
    stages = [
        (1, 16, 2, 3),
        (6, 24, 3, 3),
        (6, 40, 3, 5),
        (6, 80, 4, 3),
        (6, 112, 4, 5),
        (6, 192, 5, 5),
        (6, 320, 2, 3),
    ]
    for expansion, out, blocks, kernel in stages:
        for _ in range(blocks):
            wide, squeezed = into * expansion, into // 4
            arrays += convolution(into, wide, 1) if expansion > 1 else []
            arrays += convolution(wide, wide, kernel, groups=wide)
            arrays += [(squeezed, wide, 1, 1), (squeezed,), (wide, squeezed, 1, 1), (wide,)]
            arrays += convolution(wide, out, 1)
            into = out
    return [*arrays, *convolution(into, 1_280, 1), (1_000, 1_280), (1_000,)]


LAYOUTS = {
    "1 x 1,000,000": [(1_000_000,)],
    "1000 x 1000": [(1_000,)] * 1_000,
    "10,000 x 100": [(100,)] * 10_000,
    "EfficientNet-B1": efficientnet_b1(),
    "GPT-2 small": gpt2_small(),
}

# For comparison with PyTorch; PPO is the network of a reinforcement-learning agent with two hidden layers of 64.
TORCH_MODELS = {
    "small transformer": small_transformer(),
    "EfficientNet-B1": efficientnet_b1(),
    "PPO": [(64, 8), (64,), (64, 64), (64,), (4, 64), (4,)],
}
