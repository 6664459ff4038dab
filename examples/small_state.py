"""Train with state in less memory, and measure its effect on the loss.

`AdamW` trains two models in plain NumPy with each state format and several seeds: the network of `digits.py`, and a
small language model that predicts the next character of this package's documentation from the sixteen before it. The
tables have the mean of the final validation loss, its standard deviation over the seeds, and the mean difference from
float32 state with the same seed, with its standard error. The differences are smaller than the standard deviation,
except for 16-bit parameters without master weights.

    python examples/small_state.py [--seeds 5] [--epochs 30] [--steps 1500]

It needs ml_dtypes, scikit-learn and tqdm, which `make demo` installs.
"""

import argparse
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
from network import backward, batches, evaluate, forward, init_params, load_data
from tqdm import tqdm

import schuss

FORMATS = {
    "float32": {},
    "bfloat16": {"state_dtype": "bfloat16"},
    "bfloat16, nearest": {"state_dtype": "bfloat16", "state_rounding": "nearest"},
    "int8": {"state_dtype": "int8"},
    "bfloat16 parameters, master": {"master_weights": True},
    "bfloat16 parameters, master, int8": {"master_weights": True, "state_dtype": "int8"},
    "bfloat16 parameters, no master": {},
}
CONTEXT, EMBEDDING, HIDDEN = 16, 24, 192


def has_bfloat16_params(way):
    return way.startswith("bfloat16 parameters")


def cast(structure, dtype):
    if isinstance(structure, dict):
        return {name: cast(value, dtype) for name, value in structure.items()}
    return structure.astype(dtype)


def optimize(params, way, seed, gradients, **settings):
    """A function that takes a step, and one that returns the parameters in float32, in which the model computes."""
    own = cast(params, ml_dtypes.bfloat16) if has_bfloat16_params(way) else params
    optimizer = schuss.AdamW(own, state_seed=seed, **FORMATS[way], **settings)
    return lambda *batch: optimizer.step(gradients(cast(own, np.float32), *batch)), lambda: cast(own, np.float32)


def digits(way, seed, data, epochs):
    rng = np.random.default_rng(seed)
    step, now = optimize(init_params(rng), way, seed, backward, lr=1e-3, weight_decay=0.05)
    for _ in range(epochs):
        for batch in batches(rng, len(data.y), 32):
            step(data.x[batch], data.y[batch])
    _, _, log_probs = forward(now(), data.x_test)
    return -log_probs[np.arange(len(data.y_test)), data.y_test].mean(), evaluate(now(), data)[1]


def text():
    """The documentation as numbers: training text, validation text, and the size of the vocabulary."""
    root = Path(__file__).parent.parent
    files = [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs" / "guide").glob("*.rst"))]
    files += sorted((root / "python" / "schuss").rglob("*.py"))
    everything = "\n".join(file.read_text(encoding="utf-8") for file in files)
    characters, numbers = np.unique(np.array(list(everything)), return_inverse=True)
    parts = np.array_split(numbers, 200)  # every tenth part is for validation
    return np.concatenate(parts[1::2] + parts[2::10]), np.concatenate(parts[::10]), len(characters)


def init_model(rng, vocabulary):
    shapes = {"embedding": (vocabulary, EMBEDDING), "w1": (CONTEXT * EMBEDDING, HIDDEN), "w2": (HIDDEN, vocabulary)}
    model = {name: (rng.standard_normal(s) / np.sqrt(s[0])).astype(np.float32) for name, s in shapes.items()}
    model["embedding"] *= np.sqrt(vocabulary) / 4
    return model | {"b1": np.zeros(HIDDEN, np.float32), "b2": np.zeros(vocabulary, np.float32)}


def predict(model, context):
    x = model["embedding"][context].reshape(len(context), -1)
    h = np.tanh(x @ model["w1"] + model["b1"])
    scores = h @ model["w2"] + model["b2"]
    scores -= scores.max(axis=1, keepdims=True)
    return x, h, scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def model_gradients(model, context, following):
    x, h, log_probs = predict(model, context)
    d2 = np.exp(log_probs)
    d2[np.arange(len(following)), following] -= 1
    d2 /= len(following)
    d1 = (d2 @ model["w2"].T) * (1 - h * h)
    dx = (d1 @ model["w1"].T).reshape(-1, EMBEDDING)
    embedding = np.zeros_like(model["embedding"])
    np.add.at(embedding, context.ravel(), dx)
    return {"embedding": embedding, "w1": x.T @ d1, "w2": h.T @ d2, "b1": d1.sum(axis=0), "b2": d2.sum(axis=0)}


def language_model(way, seed, data, steps):
    train, validation, vocabulary = data
    rng = np.random.default_rng(seed)
    rate = schuss.schedules.warmup_cosine(3e-3, 50, steps)
    step, now = optimize(init_model(rng, vocabulary), way, seed, model_gradients, lr=rate, weight_decay=0.01)
    windows = np.lib.stride_tricks.sliding_window_view(train, CONTEXT + 1)
    for _ in range(steps):
        rows = windows[rng.integers(len(windows), size=128)]
        step(rows[:, :-1], rows[:, -1])
    rows = np.lib.stride_tricks.sliding_window_view(validation, CONTEXT + 1)[::4]
    log_probs = predict(now(), rows[:, :-1])[2]
    return -log_probs[np.arange(len(rows)), rows[:, -1]].mean(), None


def table(title, run, seeds):
    losses = {}
    for way in FORMATS:
        losses[way] = np.array([run(way, seed)[0] for seed in tqdm(range(seeds), desc=f"{title}, {way}", leave=False)])
    print(f"\n{title}: validation loss over {seeds} seeds\n")
    print("| state | mean | spread over seeds | minus float32, same seed |\n|---|---|---|---|")
    for way, own in losses.items():
        other = own - losses["float32"]
        difference = f"{other.mean():+.4f} ± {other.std(ddof=1) / np.sqrt(seeds):.4f}" if way != "float32" else ""
        print(f"| {way} | {own.mean():.4f} | {own.std(ddof=1):.4f} | {difference} |")
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--steps", type=int, default=1500)
    given = parser.parse_args()
    table("Digits", partial(digits, data=load_data(), epochs=given.epochs), given.seeds)
    table("Language model", partial(language_model, data=text(), steps=given.steps), given.seeds)


if __name__ == "__main__":
    main()
