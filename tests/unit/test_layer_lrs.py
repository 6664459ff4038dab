"""Learning rates by layer: layer_lrs makes the groups."""

import re

import numpy as np
import pytest
from helpers import refused

import schuss
from schuss import transforms as tf


def test_layer_lrs():
    params = {"body": [np.ones(2), np.ones(3)], "head": np.ones(2)}
    groups = tf.layer_lrs(params, {r"\['body'\]\[0\]": 0.25, "body": 0.5}, lr=schuss.schedules.constant(0.8))
    assert [list(group["params"]) for group in groups] == [["['body'][0]"], ["['body'][1]"], ["['head']"]]
    opt = schuss.SGD(groups)
    opt.step([{key: np.ones_like(p) for key, p in group["params"].items()} for group in groups])
    assert [params["body"][0][0], params["body"][1][0], params["head"][0]] == [0.8, 0.6, 0.19999999999999996]
    assert [group["lr"] for group in tf.layer_lrs(np.ones(2), {}, lr=0.5)] == [0.5]


@pytest.mark.parametrize(
    ("params", "part"),
    [
        ([np.ones(1) for _ in range(12)], "[{}]"),
        ({f"layer{i}": np.ones(1) for i in range(12)}, "['layer{}']"),
        ([{"layers": [np.ones(1)]} for _ in range(12)], "[{}]['layers'][0]"),
        ({(i, 2): np.ones(1) for i in range(12)}, "[({}, 2)]"),
        ({f"layer{i}": np.ones(1) for i in range(12)}, r"layer{}\b"),
    ],
)
def test_layer_lrs_by_layer(params, part):
    """Brackets of a path are no sets of characters."""
    decay = {part.format(i): 0.5 ** (12 - i) for i in range(12)}
    rates = {place: group["lr"] for group in tf.layer_lrs(params, decay, lr=1.0) for place in group["params"]}
    assert rates == {place: 0.5 ** (12 - int(re.search(r"\d+", place)[0])) for place in rates} and len(rates) == 12


def test_wrong_calls():
    w = np.ones(2)
    for call, error, message in [
        (lambda: tf.layer_lrs(w, [("a", 0.5)], 0.1), TypeError,
         "factors must be a dict from patterns to factors, got list"),
        (lambda: tf.layer_lrs(w, {"a": -1}, 0.1), ValueError, "factors['a'] must be a number >= 0, got -1"),
        (lambda: tf.layer_lrs({"a": w}, {"*": 0.5}, 0.1), ValueError,
         "factors['*'] is neither a part of ['a'] nor a regular expression: nothing to repeat at position 0"),
        (lambda: tf.layer_lrs(w, {1: 0.5}, 0.1), TypeError, "the patterns of factors must be strings, got 1"),
        (lambda: tf.layer_lrs({"encoder": w, "head": w.copy()}, {"encodr": 0.1}, 0.1), ValueError,
         "factors has 'encodr', but no array has it in its path (the first is ['encoder']); "
         "correct it or leave it out"),
    ]:  # fmt: skip
        with refused(error, message):
            call()
