"""The end of a training step in one call and in separate calls: unscale, check for NaN, clip, step, zero."""

from .table import Table, short, speedup, time

PIECES = ["GPT-2 small"]
SCALE, NORM = 128.0, 1.0


def measure(piece, rounds):
    from benchmarks.models import LAYOUTS

    return tail(LAYOUTS[piece], min(rounds, 7))


def tail(shapes, rounds):
    """Times the single call, the separate calls in a row, and each of them alone."""
    from statistics import median

    from benchmarks import jobs, libraries, timing

    job = jobs.Job("AdamW", shapes, **jobs.ADAMW, max_grad_norm=NORM, nonfinite="skip")
    steps = _ours(jobs, job)
    if "torch fused" in libraries.LIBRARIES:
        steps |= _torch(jobs, libraries, shapes, job.grads)

    def refill():
        """Gradients with a norm far above the bound, for the next call to clip; torch's are the same arrays."""
        for g in job.grads:
            g.fill(SCALE)

    taken = timing.interleave(steps, rounds, seconds=0.02, rest=0.01, work=refill)
    result = {"seconds": {name: median(each) for name, each in taken.items()}}
    for name in taken.keys() & {"torch", "separately"}:
        result[name] = timing.ratio(taken, name, "schuss")
    return result


def _ours(jobs, job):
    import numpy as np

    import schuss

    grads, fused = job.grads, job.optimizer
    plain = jobs.make("AdamW", job.params, **jobs.ADAMW)  # over the same arrays, with its own state

    def unscale():
        for g in grads:
            np.multiply(g, np.float32(1 / SCALE), out=g)

    def clip():
        schuss.clip_grad_norm_(grads, NORM)

    def zero():
        for g in grads:
            g.fill(0)

    def separately():
        unscale()
        clip()
        plain.step(grads)
        zero()

    return {
        "schuss": lambda: fused.step(grads, grad_scale=SCALE, zero_grads=True),
        "separately": separately,
        "our unscale (NumPy)": unscale,
        "our clip_grad_norm_": clip,
        "our step": lambda: plain.step(grads),
        "our zeroing (NumPy)": zero,
    }


def _torch(jobs, libraries, shapes, grads):
    import torch

    params, _ = libraries.torch_model(shapes, threads=jobs.THREADS)
    for p, g in zip(params, grads):
        p.grad = torch.from_numpy(g)
    options = {
        "betas": (libraries.BETA1, libraries.BETA2),
        "eps": libraries.EPS,
        "weight_decay": libraries.WEIGHT_DECAY,
    }
    optimizer = torch.optim.AdamW(params, lr=libraries.LR, fused=True, **options)
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, growth_interval=10**9)
    scaler.scale(torch.ones(()))  # initializes the scale

    def unscale():
        scaler.unscale_(optimizer)

    def clip():
        torch.nn.utils.clip_grad_norm_(params, NORM)

    def whole():
        unscale()
        clip()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=False)

    def unscale_alone():
        unscale()
        scaler.update()

    return {
        "torch": whole,
        "torch's unscale_": unscale_alone,
        "torch's clip_grad_norm_": clip,
        "torch's fused step": optimizer.step,
        "torch's zero_grad": lambda: optimizer.zero_grad(set_to_none=False),
    }


def tables(data):
    own = data.get("GPT-2 small")
    if not own:
        return []
    text = (
        "AdamW, float32, the 148 arrays of GPT-2 small: unscale the gradients, check for NaN, clip to a global norm, "
        "step, zero the gradients. schuss does this in one call; torch uses GradScaler.unscale_, clip_grad_norm_, the "
        "fused step and zero_grad(set_to_none=False). Before every call the gradients get values again, so that their "
        "norm is above the bound; that is not counted. The parts are also timed separately. A torch program that frees "
        "its gradients instead of zeroing them saves that part."
    )
    rows = [["schuss, one call", time(own["seconds"]["schuss"]), ""]]
    if "torch" in own:
        rows.append(["torch, separate calls", time(own["seconds"]["torch"]), speedup(own["torch"], "torch")])
    rows.append(["schuss, separate calls", time(own["seconds"]["separately"]), short(own["separately"])])
    for name, seconds in own["seconds"].items():
        if name not in ("schuss", "torch", "separately"):
            rows.append([name, time(seconds), ""])
    return [Table("Unscale, clip, step and zero in one call", text, ["what", "time", "divided by our one call"], rows)]


def targets(data):
    own = data.get("GPT-2 small", {})
    return [("GPT-2 small: torch / our one call", own["torch"], ">=", 1.5)] if "torch" in own else []
