"""Arrays without gradients: a step leaves them and their state alone, and each array counts only its own steps."""

import copy
import pickle

import numpy as np
import pytest
from helpers import (
    F64,
    TYPICAL,
    assert_same,
    assert_unchanged,
    build,
    depends_on_position,
    each_optimizer_but,
    grads_of,
    group_options,
    has_slow_weights,
    is_newton,
    parameters,
    params_of,
    refused,
    sampled_cases_but,
    shared,
    snapshot,
    spans_arrays,
    states,
)

import schuss

SHAPES = [(33,), (5, 300), (), (4, 3)]


def of(opt, k):
    """A parameter of an optimizer over a list, and its states."""
    states = (named[k] for named in opt.state_dict()["state"][0].values())
    return [parameters(opt)[k], *(state for state in states if state is not None)]


def has_schedule(case):
    return callable(case.kwargs.get("lr"))


@sampled_cases_but(is_newton)
def test_an_array_without_gradients_is_as_if_it_were_not_there(case):
    params, alone = params_of(SHAPES), params_of(SHAPES)[:2]
    opt, other = build(case, params), build(case, alone)
    before = [[a.copy() for a in of(opt, k)] for k in (2, 3)]
    for t in range(1, 6):
        grads = grads_of(t, SHAPES)
        opt.step([*grads[:2], None, None], grad_scale=2.0)
        other.step(grads[:2], grad_scale=2.0)
        assert opt.grad_norm == other.grad_norm
    for k in (0, 1):
        assert_same(of(opt, k), of(other, k))
    for k in (2, 3):
        assert_same(of(opt, k), before[k - 2])
    assert_same(list(shared(opt).values()), list(shared(other).values()))
    assert opt.step_count == 5


@sampled_cases_but(is_newton, spans_arrays, has_slow_weights, depends_on_position, has_schedule)
def test_each_array_counts_its_own_steps(case):
    params, alone = params_of(SHAPES), params_of(SHAPES)
    opt, others = build(case, params), [build(case, [p]) for p in alone]
    present = [[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 0, 1], [1, 0, 0, 0, 1, 1], [0, 1, 1, 0, 1, 1]]
    for t in range(6):
        grads = [g if present[i][t] else None for i, g in enumerate(grads_of(t, SHAPES))]
        opt.step(grads)
        for other, g in zip(others, grads, strict=True):
            if g is not None:
                other.step([g])
    for k, other in enumerate(others):
        assert_same(of(opt, k), of(other, 0))


@each_optimizer_but(is_newton)
def test_missed_steps_are_saved(case, tmp_path):
    def start():
        a, b, c, d = params_of(SHAPES)
        return build(case, [{"params": {"a": a, "rest": [b, c]}}, {"params": d}])

    def step(opt, t):
        a, b, c, d = grads_of(t, SHAPES)
        opt.step([{"a": a, "rest": [None, c] if t == 2 else None if t % 2 else [b, c]}, None if t == 1 else d])

    opt = start()
    for t in range(4):
        step(opt, t)
    schuss.save(tmp_path / "opt", opt)
    loaded, by_state = start(), start()
    schuss.load(tmp_path / "opt", loaded)
    for group, own in zip(by_state.param_groups, opt.param_groups, strict=True):
        for p, q in zip(group["params"], own["params"], strict=True):
            p[...] = q
    by_state.load_state_dict(opt.state_dict())
    copies = [loaded, by_state, pickle.loads(pickle.dumps(opt))]
    for t in range(4, 7):
        step(opt, t)
        for other in copies:
            step(other, t)
    for other in copies:
        assert_unchanged(other, snapshot(opt))
    if case.kwargs.get("pullback") != "reset":
        assert [group.get("missed_steps") for group in opt.state_dict()["param_groups"]] == [
            {"['rest'][0]": 4, "['rest'][1]": 3}, {"": 1},
        ]  # fmt: skip


def test_counts_are_saved_only_where_they_differ():
    opt = schuss.Adam([np.ones(2), np.ones(3)])
    opt.step([np.ones(2), np.ones(3)])
    assert "missed_steps" not in opt.state_dict()["param_groups"][0]
    state = opt.state_dict()
    opt.step([np.ones(2), None])
    opt.load_state_dict(state)  # which has missed none
    assert "missed_steps" not in opt.state_dict()["param_groups"][0]


def test_a_dict_may_lack_keys_if_it_is_partial():
    one, other = ({"a": np.ones(2), "rest": {"b": np.ones(3), "c": np.ones(1)}} for _ in range(2))
    opt, twin = schuss.AdamW(one), schuss.AdamW(other)
    for part, whole in [
        ({"a": np.ones(2)}, {"a": np.ones(2), "rest": None}),
        ({"rest": {"c": np.ones(1)}}, {"a": None, "rest": {"b": None, "c": np.ones(1)}}),
        ({}, {"a": None, "rest": None}),
    ]:
        assert opt.step(part, partial=True) and twin.step(whole)
    assert_unchanged(opt, snapshot(twin))
    assert opt.step_count == 3 and one["rest"]["b"][0] == 1 and one["a"][0] < 1
    with refused(ValueError, "grads lacks 'a', 'rest'; it must have the keys of params: 'a', 'rest'"):
        opt.step({})


def test_none_among_the_parameters_is_a_hole():
    w, b = np.ones(2), np.ones(3)
    params = [{"w": w, "b": None}, [None, b]]
    opt = schuss.SGD(params, lr=0.5, momentum=0.9)
    assert opt.step([{"w": np.ones(2), "b": None}, [None, np.ones(3)]])
    assert opt.step([{"w": np.ones(2)}, [None, None]], partial=True)
    np.testing.assert_allclose(w, -0.45)
    assert (b == 0.5).all()
    assert opt.grads[0]["b"] is None and opt.grads[1][0] is None
    opt.grads[1][1] += 1
    assert opt.step(zero_grads=True) and not opt.grads[1][1].any()
    opt.zero_grad()
    assert opt.state_dict()["state"][0]["b"][0]["b"] is None
    again = schuss.SGD([{"w": np.ones(2), "b": None}, [None, np.ones(3)]], lr=0.5, momentum=0.9)
    again.load_state_dict(opt.state_dict())
    assert_same(list(states(again).values()), list(states(opt).values()))
    assert pickle.loads(pickle.dumps(opt)).step_count == 3


def test_gradient_tools_take_none():
    grads = {"a": np.array([3.0]), "b": None, "c": [None, np.array([4.0])]}
    assert schuss.global_norm(grads) == 5.0
    assert schuss.clip_grad_norm_(grads, 1.0) == 5.0 and schuss.global_norm(grads) < 1.0
    schuss.clip_grad_value_(grads, 0.5)
    schuss.centralize_(grads)
    assert grads["a"] == 0.5 and schuss.global_norm([None]) == 0.0
    assert len(schuss.split_groups({"a": np.ones(2), "b": None})) == 1


def test_what_is_absent_is_not_read_zeroed_or_checked():
    w, v = np.ones(2), np.ones(2)
    opt = schuss.AdamW([w, v], nonfinite="skip", max_grad_norm=1.0)
    bad = np.full(2, np.nan)
    assert not opt.step([np.ones(2), bad])
    assert opt.step([np.ones(2), None], zero_grads=True) and np.isnan(bad).all()
    g = np.ones(2)
    assert opt.step([g, None], zero_grads=True) and not g.any()
    assert opt.skipped_steps == 1 and (v == 1).all()


def test_a_gradient_comes_back():
    """The buffers of earlier steps are recognized by their memory, also after steps without them."""
    opt, twin = (schuss.Adam([np.ones(3), np.ones(4)], lr=0.1) for _ in range(2))
    a, b = np.ones(3), np.ones(4)
    for t in range(8):
        opt.step([a, b if t % 3 else None])
        twin.step([a.copy(), b.copy() if t % 3 else None])
        a += 0.5
        b -= 0.5
    assert_unchanged(opt, snapshot(twin))


def test_nag_puts_arrays_without_gradients_back():
    w, v = np.array([1.0, 2.0]), np.array([3.0])
    opt = schuss.NAG({"w": w, "v": v}, lr=0.1)
    opt.step(lambda: {"w": w, "v": v})
    kept = v.copy()
    for options in ({}, {"partial": True}):
        seen = []

        def closure(seen=seen, partial=bool(options)):
            seen.append(v.copy())
            return {"w": w} if partial else {"w": w * 1.0, "v": None}

        assert opt.step(closure, **options)
        assert_same(v, kept)
        assert (seen[0] != kept).all(), "it was at its look-ahead point"
    assert opt._read_counters().missed == [2, 0]


def test_groups_that_are_added_and_their_arrays_missed_steps():
    opt = schuss.Adam([np.ones(2), np.ones(3)], lr=0.1)
    opt.step([None, np.ones(3)])
    opt.add_param_group({"params": np.ones(1)})
    opt.step([None, np.ones(1)])
    assert opt._read_counters().groups == [2, 1] and opt._read_counters().missed == [2, 1, 0]


def test_generators_and_values_of_dicts():
    for kind in (schuss.AdamW, schuss.Ranger, schuss.NAG):
        params = [np.ones(3), np.ones(2)]
        opt = kind(p for p in params)
        assert opt.param_groups[0]["params"][1] is params[1]
        opt = kind(dict(enumerate(params)).values())
        assert opt.param_groups[0]["params"][0] is params[0]
    opt = schuss.SGD({"params": group} for group in ([np.ones(2)], (p for p in params)))
    assert [len(group["params"]) for group in opt.param_groups] == [1, 2]


@pytest.mark.parametrize("given", [list, iter, lambda own: [{"params": own}], lambda own: [{"params": iter(own)}]])
def test_arrays_on_a_gpu_are_found_in_generators(given):
    array = type("Array", (), {"__cuda_array_interface__": {}})()
    with refused(TypeError, "NAG works on NumPy arrays only; params has arrays on a GPU"):
        schuss.NAG(given([array]))


class TestNotStrict:
    def start(self, last, names="ab", **options):
        params = {name: np.ones(3) for name in names} | {"last": np.ones(last)}
        opt = schuss.Adam([{"params": params}], lr=0.1, **options)
        return opt, params

    def test_what_fits_is_loaded(self, tmp_path):
        opt, params = self.start(4)
        for _ in range(3):
            opt.step([{name: np.ones(p.shape) for name, p in params.items()}])
        schuss.save(tmp_path / "opt", opt)
        for load in ("file", "dict"):
            new, own = self.start(2, "bc")
            if load == "file":
                unfit = schuss.load(tmp_path / "opt", new, strict=False)
                assert_same(own["b"], params["b"])
            else:
                unfit = new.load_state_dict(opt.state_dict(), strict=False)
                own["b"][...] = params["b"]
            assert len(unfit) == (9 if load == "file" else 6), unfit
            assert sum("['last']" in message for message in unfit) == len(unfit) // 3
            assert new.step_count == 3
            state = new.state_dict()
            assert_same(state["state"][0]["m"]["b"], opt.state_dict()["state"][0]["m"]["b"])
            assert not state["state"][0]["m"]["last"].any()
            assert state["param_groups"][0]["missed_steps"] == {"['c']": 3, "['last']": 3}
            # The new array's bias correction starts at its own first step.
            new.step([{"b": np.ones(3), "c": np.ones(3), "last": np.ones(2)}])
            np.testing.assert_allclose([own["c"][0], own["last"][0]], 0.9, rtol=1e-7)
            opt_again, params_again = self.start(4)
            schuss.load(tmp_path / "opt", opt_again)
            opt_again.step([{"a": np.ones(3), "b": np.ones(3), "last": np.ones(4)}])
            assert_same(own["b"], params_again["b"])

    def test_all_that_fits_is_no_message(self, tmp_path):
        opt, _ = self.start(4)
        schuss.save(tmp_path / "opt", opt)
        assert schuss.load(tmp_path / "opt", self.start(4)[0], strict=False) == []
        assert self.start(4)[0].load_state_dict(opt.state_dict(), strict=False) == []
        assert self.start(4)[0].load_state_dict(opt.state_dict()) is None

    def test_groups_and_hyperparameters_that_do_not_fit(self):
        opt, params = self.start(4)
        opt.step([{name: np.ones(p.shape) for name, p in params.items()}])
        state = opt.state_dict()
        state["param_groups"][0]["lr"] = -1.0
        new, _ = self.start(4)
        assert new.load_state_dict(state, strict=False) == [
            "state['param_groups'][0]: lr must be a number >= 0, got -1.0"
        ]
        assert new.param_groups[0]["lr"] == 0.1 and new._read_counters().groups == [1]
        more = schuss.Adam([{"params": params}, {"params": np.ones(2)}], lr=0.2)
        unfit = more.load_state_dict(opt.state_dict(), strict=False)
        assert unfit[-1].endswith("must be a list with a dict for each group, 2 in all")
        assert more.param_groups[0]["lr"] == 0.1 and more.param_groups[1]["lr"] == 0.2
        assert more._read_counters().groups == [1, 0]

    def test_states_of_another_format_are_kept(self):
        opt, params = self.start(4, state_dtype="bfloat16")
        opt.step([{name: np.ones(p.shape) for name, p in params.items()}])
        new, _ = self.start(4)
        unfit = new.load_state_dict(opt.state_dict(), strict=False)
        assert any("state_dtype='bfloat16'" in message for message in unfit)
        assert not new.state_dict()["state"][0]["m"]["a"].any()
        assert new._read_counters().missed == [1, 1, 1]
        # Arrays that keep more steps than the group now counts have missed none.
        more, params = self.start(4)
        for _ in range(3):
            more.step([{name: np.ones(p.shape) for name, p in params.items()}])
        more.load_state_dict(opt.state_dict(), strict=False)
        assert more.step_count == 1 and not any(more._read_counters().missed)

    def test_missed_steps_that_cannot_be(self):
        opt, params = self.start(4)
        opt.step([{name: np.ones(p.shape) for name, p in params.items()}])
        for path, times, message in [
            ("['a']", 2, "['missed_steps'][\"['a']\"] is 2, but the group has taken 1 steps"),
            ("['gone']", 1, "['missed_steps'] has unknown \"['gone']\", where this optimizer has no array"),
        ]:
            state = opt.state_dict()
            state["param_groups"][0]["missed_steps"] = {path: times}
            with refused(ValueError, f"state['param_groups'][0]{message}"):
                self.start(4)[0].load_state_dict(state)
            assert self.start(4)[0].load_state_dict(state, strict=False) == [f"state['param_groups'][0]{message}"]

    def test_a_group_that_does_not_fit_keeps_its_steps(self, tmp_path):
        """Then it may have taken more than the optimizer, and that state loads again."""
        state = schuss.Adam([{"params": np.ones(3)}, {"params": np.ones(2)}]).state_dict()
        opt = schuss.Adam([{"params": np.ones(3)}, {"params": np.ones(2)}])
        opt.step([np.ones(3), np.ones(2)])
        state["param_groups"][1] = {}
        opt.load_state_dict(state, strict=False)
        assert opt.step_count == 0 and opt._read_counters().groups == [0, 1]
        opt.load_state_dict(opt.state_dict())
        schuss.save(tmp_path / "file", opt)
        schuss.load(tmp_path / "file", opt)
        assert copy.deepcopy(opt)._read_counters() == opt._read_counters()

    def test_another_class_is_refused(self):
        opt, _ = self.start(4)
        with refused(ValueError, "this is the state of 'Adam', but the optimizer is 'AdamW'"):
            schuss.AdamW([{"params": {"a": np.ones(3)}}]).load_state_dict(opt.state_dict(), strict=False)


def test_group_options_have_counts_of_their_own():
    case = TYPICAL["AdamW"]
    params = params_of(SHAPES, F64)
    opt = build(case, [{"params": params[:2]}, {"params": params[2:], **group_options(case)}])
    grads = grads_of(1, SHAPES, F64)
    opt.step([None, grads[2:]])
    assert opt._read_counters().missed == [1, 1, 0, 0]
