"""Make wider.json of the record that make_wider.py writes: what the tests compare with, once.

Run: python condense_wider.py < record.json > wider.json
Left out: what computes something other than the equations (`follows_spec`), and keywords that only describe a peer.
Packages that agree to 1e-10 of the way from the start share one trajectory, that of the one closest to the equations.
Numbers are rounded to 1e-11 of the first step's length.
"""
import json, math, sys

import numpy as np

STEPS = [1, 2, 5, 25]
# Keywords that say what a package does differently, with the optimizer, or "" for all: no options of ours.
PEERS_ONLY = {
    "average_first": "", "eps_before_bias": "", "eps_inside": "", "eps_in": "", "first": "MARS", "rms_floor": "",
    "eps_root": "", "first_diff": "", "min_norm": "", "order": "", "statistics": "", "eps_zero": "", "warmup_from": "",
    "eps_form": "AdamP", "decay": "AdEMAMix", "decay_after": "", "decay_lr": "",
}
SAME = {"rms_floor": lambda kwargs: "eps" not in kwargs}  # the same for the default eps


def ours(name, kwargs):
    """The keywords that are ours; None if the case is not."""
    own = {}
    for key, value in kwargs.items():
        if name in PEERS_ONLY.get(key, "-").split() or PEERS_ONLY.get(key) == "":
            if key not in SAME or not SAME[key](kwargs):
                return None
        elif value == "original_transposed":  # of matrices whose rows are the inputs
            own |= {"adjust_lr_fn": "original", "layout": "in_out"}
        elif (name, key, value) == ("Muon", "adjust_lr_fn", "none"):
            own[key] = None
        else:
            own[key] = value
    if name == "Shampoo":  # pytorch_optimizer's forms of what the equations leave open
        own |= {"momentum_form": "feedback"} if "momentum" in own else {}
        own |= {"before_first_root": "wait"} if "update_freq" in own else {}
    return own


def start(shapes):
    return [[math.cos(1.3 * (i + 1) + k) * 2.0 for i in range(math.prod(s))] for k, s in enumerate(shapes)]


def distance(a, b):
    return max(np.max(np.abs(np.subtract(x, y))) for x, y in zip(a, b))


def rounded(params, begin):
    far = next(f for f in (distance(p, begin) for p in params) if f > 0)
    digits = 11 - math.floor(math.log10(far))
    near = [[[round(x, digits) for x in array] for array in arrays] for arrays in params]
    return [begin if distance(p, begin) == 0 else r for p, r in zip(params, near)]


def agree(a, b, begin):
    return all(distance(p, q) <= 1e-10 * distance(p, begin) for p, q in zip(a, b))


def condense(record):
    chosen = [record["steps"].index(step) for step in STEPS]
    cases, special = [], []
    for case in sorted(record["cases"], key=lambda case: case["spec_error"] or 0):
        name, kwargs = case["optimizer"], ours(case["optimizer"], case["kwargs"])
        # The line search of LBFGS has no independent equations: PyTorch's figures are the definition.
        searches = "line_search_fn" in case["kwargs"]
        if not (case["follows_spec"] or searches) or kwargs is None:
            continue
        if "special" in case:
            special.append({k: v for k, v in case.items() if k not in ("follows_spec", "peer_kwargs")})
            continue
        if name == "CautiousAdamW":
            name, kwargs = "AdamW", {"cautious": "mean"} | kwargs
        begin = start(case["shapes"])
        own = dict(optimizer=name, kwargs=kwargs, problem=case["problem"])
        own |= {"shapes": case["shapes"]} if case["shapes"] != record["shapes"] else {}
        own |= {"hessian": case["hessian"]} if "hessian" in case else {}
        lists = {k: [case[k][i] for i in chosen] for k in ("params", "eval_params") if k in case}
        for other in cases:
            same = all(other.get(k) == v for k, v in own.items()) and ("eval_params" in lists) == ("eval_params" in other)
            if same and all(agree(other[k], lists[k], begin) for k in lists):
                other["peers"].append(case["peer_class"])
                break
        else:
            cases.append(own | dict(peers=[case["peer_class"]], spec_error=case["spec_error"] or 0.0) | lists)
    for case in cases:
        for k in ("params", "eval_params"):
            if k in case:
                case[k] = rounded(case[k], start(case.get("shapes", record["shapes"])))
    names = list(record["defaults"])
    cases.sort(key=lambda case: names.index(case["optimizer"]) if case["optimizer"] in names else -1)
    return dict(shapes=record["shapes"], steps=STEPS, packages=record["peers"], cases=cases, special=special)


if __name__ == "__main__":
    made = condense(json.load(sys.stdin))
    lines = {k: json.dumps(v, separators=(",", ":")) for k, v in made.items()}
    for k in ("cases", "special"):  # one case a line
        lines[k] = "[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in made[k]) + "\n]"
    print("{" + ",\n".join(f'"{k}":{v}' for k, v in lines.items()) + "}")
