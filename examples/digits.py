"""Train a small network on handwritten digits with the usual optimizers, or with all, and plot the learning curves.

The network is plain NumPy (`network.py`). The data are scikit-learn's 1797 digits of 8 by 8 pixels. `USUAL` lists the
optimizers that are trained without `--all`. The table at the end has the test accuracy, the number of epochs until
95 %, and the time of one optimizer step next to that of the same update as a NumPy expression. The figure has a plot
for each optimizer, by family: the training loss by epoch, geometric mean and range over the seeds. With momentum or
Adam the training loss becomes several times lower than with plain SGD or Adagrad in as many epochs, while the test
accuracies are close. Newton and LBFGS are left out: they need the Hessian, and the loss.

    python examples/digits.py [--all] [--seeds 5] [--epochs 30] [--out build/digits.png]
"""

import argparse
import inspect
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from network import SIZES, backward, batches, evaluate, init_params, load_data
from numpy_expressions import EXPRESSIONS
from style import FAINT, INK, style
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import schuss

BATCH = 32
TARGET = 0.95

# For each family: label, class, keyword arguments. A class of the package that is in none gets a row with its defaults
# in the last one.
GROUPS = {
    "Gradient descent and momentum": [
        ("SGD", "SGD", {"lr": 0.2}),
        ("SGD momentum", "SGD", {"lr": 0.05, "momentum": 0.9}),
        ("SGD Nesterov", "SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
        ("NAG", "NAG", {"lr": 0.05}),
        ("QHM", "QHM", {"lr": 0.5, "momentum": 0.9}),
        ("AggMo", "AggMo", {"lr": 0.02}),
        ("ASGD", "ASGD", {"lr": 0.2}),
        ("SGDP", "SGDP", {"lr": 0.05, "momentum": 0.9}),
        ("Fromage", "Fromage", {"lr": 0.01}),
    ],
    "Signs of gradients": [
        ("SignSGD", "SignSGD", {"lr": 1e-3}),
        ("Signum", "Signum", {"lr": 1e-3}),
        ("Tiger", "Tiger", {"lr": 1e-3}),
        ("Lion", "Lion", {"lr": 3e-4}),
        ("Rprop", "Rprop", {"lr": 1e-3}),  # for gradients of all data, and these are of batches
    ],
    "Squared gradients": [
        ("Adagrad", "Adagrad", {"lr": 0.02}),
        ("Adadelta", "Adadelta", {"lr": 1.0}),
        ("RMSprop", "RMSprop", {"lr": 1e-3}),
        ("MADGRAD", "MADGRAD", {"lr": 5e-3}),
        ("FTRL", "FTRL", {"lr": 0.02, "initial_accumulator_value": 0.0}),  # else it forgets the initial weights
        ("Adafactor", "Adafactor", {"lr": 0.03}),
        ("AdafactorHF", "AdafactorHF", {}),
        ("CAME", "CAME", {"lr": 3e-3}),
        ("SM3", "SM3", {"lr": 0.1, "momentum": 0.9}),
        ("NovoGrad", "NovoGrad", {"lr": 0.03}),
        ("AdamMini", "AdamMini", {"lr": 5e-3, "blocks": "cols"}),
        ("LARS", "LARS", {"lr": 3e-3, "weight_decay": 1e-3, "trust_coefficient": 1.0}),
        ("LAMB", "LAMB", {"lr": 3e-3, "max_grad_norm": None}),
    ],
    "Adam": [
        ("Adam", "Adam", {"lr": 3e-3}),
        ("AdamW", "AdamW", {"lr": 3e-3, "weight_decay": 0.05}),
        ("Adamax", "Adamax", {"lr": 0.01}),
        ("NAdam", "NAdam", {"lr": 5e-3}),
        ("RAdam", "RAdam", {"lr": 0.01}),
        ("Lookahead(Adam)", "Lookahead(Adam)", {"lr": 5e-3}),
        ("Ranger", "Ranger", {"lr": 0.02}),
    ],
    "Relatives of Adam": [
        ("AdaBelief", "AdaBelief", {"lr": 5e-3}),
        ("AdaBound", "AdaBound", {"lr": 0.01}),
        ("Adai", "Adai", {"lr": 0.5}),
        ("AdamAtan2", "AdamAtan2", {"lr": 3e-3}),
        ("AdamP", "AdamP", {"lr": 3e-3}),
        ("Adan", "Adan", {"lr": 5e-3}),
        ("AdEMAMix", "AdEMAMix", {"lr": 3e-3, "alpha": 2.0}),
        ("ADOPT", "ADOPT", {"lr": 3e-3}),
        ("Grams", "Grams", {"lr": 0.01}),
        ("LaProp", "LaProp", {"lr": 5e-3}),
        ("MARS", "MARS", {"lr": 5e-3, "lr_1d": 3e-3}),
        ("PAdam", "PAdam", {"lr": 0.02}),
        ("QHAdam", "QHAdam", {"lr": 3e-3, "nus": (0.7, 1.0), "betas": (0.95, 0.999)}),
        ("StableAdamW", "StableAdamW", {"lr": 3e-3}),
        ("Yogi", "Yogi", {"lr": 0.02}),
    ],
    "Matrices": [
        ("Muon", "Muon", {"lr": 3e-3, "adjust_lr_fn": "match_rms_adamw", "layout": "in_out"}),
        ("SOAP", "SOAP", {"lr": 3e-3}),
        (
            "Shampoo",
            "Shampoo",
            {"lr": 3e-3, "momentum": 0.9, "momentum_form": "ema", "grafting": "adam", "update_freq": 10},
        ),
    ],
    "No rate or no schedule to choose, second derivatives": [
        ("Prodigy", "Prodigy", {}),
        ("DAdaptAdam", "DAdaptAdam", {}),
        ("DAdaptSGD", "DAdaptSGD", {}),
        ("DoG", "DoG", {}),
        ("LDoG", "DoG", {"layerwise": True}),
        ("ScheduleFreeSGD", "ScheduleFreeSGD", {"lr": 0.5}),
        ("ScheduleFreeAdamW", "ScheduleFreeAdamW", {"lr": 5e-3}),
        ("ScheduleFreeRAdam", "ScheduleFreeRAdam", {"lr": 0.01}),
        ("SophiaG", "SophiaG", {"lr": 1e-3, "weight_decay": 0.0}),  # without a Hessian its steps are signs
        ("SophiaH", "SophiaH", {"lr": 0.1}),
    ],
    "With their defaults": [],
}
# The labels of those that are trained without --all.
USUAL = {
    *("SGD", "SGD momentum", "SGD Nesterov", "NAG", "QHM", "AggMo"),
    *("SignSGD", "Signum", "Lion"),
    *("Adagrad", "Adadelta", "RMSprop", "Adafactor", "LARS", "LAMB"),
    *("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Ranger"),
    *("AdaBelief", "Adan", "AdEMAMix", "ADOPT", "StableAdamW", "Yogi"),
    *("ScheduleFreeSGD", "ScheduleFreeAdamW", "SophiaG", "Prodigy"),
}
# Lookahead wraps an optimizer, so it is not in the registry.
CLASSES = {
    **schuss.OPTIMIZERS,
    "Lookahead(Adam)": lambda params, **settings: schuss.Lookahead(schuss.Adam(params, **settings)),
}


class Result(NamedTuple):
    group: str
    label: str
    settings: dict
    loss: np.ndarray  # (seeds, epochs + 1), the first before training
    accuracy: np.ndarray  # of the same shape
    ours_us: float
    numpy_us: float | None


def take_step(optimizer, gradients):
    """One step. NAG calls `gradients` itself, at its look-ahead point."""
    optimizer.step(gradients if isinstance(optimizer, schuss.NAG) else gradients())


def train(make_optimizer, data, seed, epochs, bar):
    rng = np.random.default_rng(seed)
    params = init_params(rng)
    optimizer = make_optimizer(params)
    history = [evaluate(params, data)]
    for _ in range(epochs):
        for batch in batches(rng, len(data.y), BATCH):
            take_step(optimizer, partial(backward, params, data.x[batch], data.y[batch]))
        history.append(evaluate(params, data))
        bar.update()
    return np.array(history).T


# The time of a step ---------------------------------------------------------------------------------------------------


def leaves(tree):
    return [array for layer in tree.values() for array in layer.values()]


def numpy_stepper(name, settings, params, grads):
    """A function that takes the same step with NumPy expressions; None if there is no expression for it."""
    expression = EXPRESSIONS.get(name)
    settings = {key: value for key, value in settings.items() if value is not None}
    if expression is None or not settings.keys() <= inspect.signature(expression).parameters.keys():
        return None
    arrays = [(p, g, {}) for p, g in zip(leaves(params), leaves(grads), strict=True)]
    t = 0

    def step():
        nonlocal t
        t += 1
        for p, g, state in arrays:
            expression(p, g, state, t, **settings)

    return step


def time_steps(name, settings, data, rounds=60, steps=10):
    """Microseconds per step of the package and of the NumPy expressions (None without any), on this network's arrays.

    The two alternate, so that other load on the machine affects both, and the median ignores outliers.
    """
    ours, plain = (init_params(np.random.default_rng(0)) for _ in range(2))
    grads = backward(ours, data.x[:BATCH], data.y[:BATCH])
    optimizer = CLASSES[name](ours, **settings)
    steppers = [lambda: take_step(optimizer, lambda: grads)]
    numpy_step = numpy_stepper(name, settings, plain, grads)
    if numpy_step is not None:
        steppers.append(numpy_step)

    for step in steppers:  # warm up; then compare the updates
        for _ in range(3):
            step()
    if numpy_step is not None:
        for ours_array, plain_array in zip(leaves(ours), leaves(plain), strict=True):
            np.testing.assert_allclose(ours_array, plain_array, rtol=1e-4, atol=1e-5, err_msg=name)

    times = np.empty((rounds, len(steppers)))
    for row in times:
        for column, step in enumerate(steppers):
            start = time.perf_counter()
            for _ in range(steps):
                step()
            row[column] = (time.perf_counter() - start) / steps * 1e6
    medians = np.median(times, axis=0).tolist()
    return medians[0], medians[1] if numpy_step is not None else None


# Training and table ---------------------------------------------------------------------------------------------------


def choose_rows(data, every):
    """The rows to train: the usual ones, or those of `GROUPS` and each other class that trains with its defaults.

    Returns them, each with its group in front, and, for classes that need more than parameters and gradients (a
    Hessian), the reason why they are left out.
    """
    rows, left_out = [(group, *row) for group, members in GROUPS.items() for row in members], {}
    if not every:
        return [row for row in rows if row[1] in USUAL], left_out
    listed = {name for _, _, name, _ in rows}
    for name in schuss.OPTIMIZERS:
        if name in listed:
            continue
        params = init_params(np.random.default_rng(0))
        try:
            take_step(CLASSES[name](params), partial(backward, params, data.x[:BATCH], data.y[:BATCH]))
        except (TypeError, ValueError) as error:
            left_out[name] = str(error)
        else:
            rows.append((list(GROUPS)[-1], name, name, {}))
    return rows, left_out


def run(rows, data, seeds, epochs):
    results = []
    with tqdm(total=len(rows) * seeds * epochs, unit="epoch", smoothing=0.1) as bar:
        for group, label, name, settings in rows:
            bar.set_description(f"{label:<{max(len(row[1]) for row in rows)}}")
            make_optimizer = partial(CLASSES[name], **settings)
            histories = [train(make_optimizer, data, seed, epochs, bar) for seed in range(seeds)]
            loss, accuracy = np.stack(histories, axis=1)
            results.append(Result(group, label, settings, loss, accuracy, *time_steps(name, settings, data)))
    return results


def epochs_to_target(accuracy):
    """The first epoch at the target, as a mean over the seeds that reach it (NaN if none does), and their number."""
    firsts = [int(np.argmax(run >= TARGET)) for run in accuracy if (run >= TARGET).any()]
    return np.mean(firsts) if firsts else np.nan, len(firsts)


def print_table(results):
    lines = [["optimizer", "settings", "test accuracy", f"epochs to {TARGET:.0%}", "schuss", "NumPy", "ratio"]]
    for r in results:
        final = r.accuracy[:, -1] * 100
        settings = ", ".join(f"{key}={value}" for key, value in r.settings.items()) or "defaults"
        epochs, seeds = epochs_to_target(r.accuracy)
        some = f" ({seeds} of {len(final)} seeds)" if seeds < len(final) else ""
        line = [r.label, settings, f"{final.mean():.1f} ± {final.std():.1f} %"]
        line += [f"{epochs:.1f}{some}" if seeds else "never", f"{r.ours_us:.1f} µs"]
        line += ["–", "–"] if r.numpy_us is None else [f"{r.numpy_us:.1f} µs", f"{r.numpy_us / r.ours_us:.1f}"]
        lines.append(line)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["─" * width for width in widths])
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line[:2], widths, strict=False)]
        cells += [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
        print("  ".join(cells))
    print("\nschuss, NumPy: median time of one optimizer step; ratio: NumPy / schuss.")


# The figure -----------------------------------------------------------------------------------------------------------

COLUMNS = 6
PANEL = 1.72, 1.25  # width and height in inches
GAP = 0.3, 0.36  # between panels; their titles are in the second
HEADING = 0.56  # above each family
MARGIN = 0.72, 0.28, 0.8  # left, bottom, top


def geometric_mean(losses):
    return np.exp(np.log(np.maximum(losses, 1e-12)).mean(axis=0))


def draw_panel(ax, result, family):
    """One optimizer's training loss in its colour, those of its family in grey."""
    colour = style(result.label)["color"]
    for other in family:
        ax.plot(geometric_mean(other.loss), color=FAINT, lw=0.9)
    epochs = np.arange(result.loss.shape[1])
    ax.fill_between(epochs, result.loss.min(axis=0), result.loss.max(axis=0), color=colour, alpha=0.2, lw=0)
    ax.plot(epochs, geometric_mean(result.loss), color=colour, lw=1.8)
    size = 9 if len(result.label) < 15 else 7.5
    ax.set_title(result.label, loc="left", color=colour, fontsize=size, fontweight="bold", pad=3)
    ax.set_title(f"{result.accuracy[:, -1].mean() * 100:.1f} %", loc="right", color=INK, fontsize=8, pad=3)
    ax.set(yscale="log", xlim=(0, len(epochs) - 1))
    ax.grid(color=FAINT, lw=0.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8, labelbottom=False, labelleft=False)
    ax.minorticks_off()
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def draw(results, path):
    """A plot for each optimizer, all of one size and with the same axes; a family begins in a new line."""
    families = {}
    for result in results:
        families.setdefault(result.group, []).append(result)
    lines = sum(-(-len(members) // COLUMNS) for members in families.values())
    (width, height), (across, down), (left, bottom, top) = PANEL, GAP, MARGIN
    size = left + COLUMNS * (width + across), bottom + top + lines * (height + down) + len(families) * HEADING
    fig = Figure(figsize=size, dpi=110)
    at_zero = geometric_mean(np.concatenate([result.loss for result in results]))[0]
    means = [geometric_mean(result.loss) for result in results if np.isfinite(result.loss).all()]
    lowest, highest = np.min(means), min(np.max(means), 100 * at_zero)
    y = size[1] - top
    for family, members in families.items():
        y -= HEADING
        fig.text(left / size[0], (y + 0.4) / size[1], family, color=INK, fontsize=12, fontweight="bold", va="bottom")
        for k, result in enumerate(members):
            column = k % COLUMNS
            y -= (height + down) if column == 0 else 0
            x = left + column * (width + across)
            ax = fig.add_axes((x / size[0], (y + down) / size[1], width / size[0], height / size[1]))
            draw_panel(ax, result, members)
            ax.set_ylim(lowest / 2, highest * 2)
            ax.tick_params(labelleft=column == 0, labelbottom=k + COLUMNS >= len(members))
            if column == 0:
                ax.set_ylabel("training loss", fontsize=8)
            if y - height - down < bottom:
                ax.set_xlabel("epoch", fontsize=8)
    seeds, epochs = results[0].loss.shape[0], results[0].loss.shape[1] - 1
    title = f"Handwritten digits: training loss over {epochs} epochs, by optimizer"
    note = (
        f"Line: geometric mean over the seeds ({seeds}); band: lowest to highest; grey: the rest of the family. "
        "Number: test accuracy after the last epoch."
    )
    fig.text(left / size[0], 1 - 0.34 / size[1], title, color=INK, fontsize=14)
    fig.text(left / size[0], 1 - 0.62 / size[1], note, color=INK, fontsize=9.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path)


def at_least_one(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--all", action="store_true", help="train with every optimizer, not only with the usual ones")
    parser.add_argument("--seeds", type=at_least_one, default=5, help="networks for each optimizer (%(default)s)")
    parser.add_argument("--epochs", type=at_least_one, default=30, help="passes over the training data (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/digits.png"), help="the figure (%(default)s)")
    args = parser.parse_args()

    data = load_data()
    rows, left_out = choose_rows(data, args.all)
    sizes = " → ".join(str(n) for n in [64, *(shape[1] for shape in SIZES.values())])
    count = sum(inputs * outputs + outputs for inputs, outputs in SIZES.values())
    print(f"{len(data.y)} digits to train with, {len(data.y_test)} to test; network {sizes} ({count} parameters)")
    print(f"batch size: {BATCH}, epochs: {args.epochs}, seeds: {args.seeds}")
    # BLAS is faster on one thread for matrices this small. An optimizer that diverges shows in the table; warnings are
    # not needed.
    with threadpool_limits(1), np.errstate(over="ignore", invalid="ignore"):
        results = run(rows, data, args.seeds, args.epochs)
    print()
    print_table(results)
    for name, reason in left_out.items():
        print(f"Not trained here: {name} ({reason})")
    if not args.all:
        print(f"Trained with {len(rows)} optimizers and settings; --all trains with each of the package.")
    draw(results, args.out)
    print(f"Learning curves: {args.out}")


if __name__ == "__main__":
    main()
