"""`schuss.flower` against Flower's own strategies, in both of its interfaces."""

import copy
import logging
import signal

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import strategy as legacy
from flwr.serverapp import strategy as modern
from flwr.supercore.task_identity import TaskIdentity
from interrupts import check_all_or_nothing

import schuss
import schuss.flower

RATES = dict(eta=0.05, tau=1e-3)
BETAS = dict(beta_1=0.8, beta_2=0.95)
OURS = {
    "FedAdam": (
        dict(**RATES, **BETAS),
        lambda a: schuss.Adam(a, lr=0.05, betas=(0.8, 0.95), eps=1e-3, eps_form="keras"),
        1,
    ),
    "FedYogi": (
        dict(**RATES, **BETAS),
        lambda a: schuss.Yogi(a, lr=0.05, betas=(0.8, 0.95), eps=1e-3, initial_accumulator_value=0.0),
        10**9,
    ),
    "FedAdagrad": (RATES, lambda a: schuss.Adagrad(a, lr=0.05, eps=1e-3), 0),
}
EXAMPLES = [10, 30, 7]


@pytest.fixture(autouse=True)
def process():
    """What Flower's engine sets in its processes."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    logging.getLogger("flwr").setLevel(logging.ERROR)


def model(dtype=np.float64):
    rng = np.random.default_rng(0)
    return {"w": rng.standard_normal((4, 3)).astype(dtype), "b": rng.standard_normal(3).astype(dtype)}


def client(arrays, seed):
    """What a client makes of the server's model."""
    rng = np.random.default_rng(seed)
    return {
        name: array if array.dtype.kind == "i" else (0.9 * array + 0.1 * rng.standard_normal(array.shape)).astype(
            array.dtype
        )
        for name, array in arrays.items()
    }  # fmt: skip


def record(arrays):
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


class Grid:
    def get_node_ids(self):
        return range(len(EXAMPLES))


def modern_round(strategy, number, arrays):
    messages = strategy.configure_train(number, record(arrays), ConfigRecord(), Grid())
    replies = []
    for message, examples in zip(messages, EXAMPLES, strict=True):
        got = {name: array.numpy() for name, array in message.content["arrays"].items()}
        content = RecordDict(
            {
                "arrays": record(client(got, 10 * number + examples)),
                "metrics": MetricRecord({"num-examples": examples}),
            }
        )
        replies.append(Message(content, dst_node_id=1, message_type="train"))
    aggregated, _ = strategy.aggregate_train(number, replies)
    return {name: array.numpy() for name, array in aggregated.items()}


def legacy_round(strategy, number, arrays):
    status, results = Status(Code.OK, ""), []
    for examples in EXAMPLES:
        own = client(arrays, 10 * number + examples)
        results.append((None, FitRes(status, ndarrays_to_parameters(list(own.values())), examples, {})))
    aggregated, _ = strategy.aggregate_fit(number, results, [])
    return dict(zip(arrays, parameters_to_ndarrays(aggregated), strict=True))


def run(play, strategy, arrays, rounds=range(1, 6)):
    for number in rounds:
        arrays = play(strategy, number, arrays)
    return arrays


@pytest.mark.parametrize("name", OURS)
def test_like_flower_with_messages(name):
    options, make, before = OURS[name]
    theirs = run(modern_round, getattr(modern, name)(**options), model())
    ours = run(modern_round, schuss.flower.FedOpt(make, steps_before=before), model())
    for key, array in theirs.items():
        np.testing.assert_allclose(ours[key], array, rtol=1e-10, atol=1e-10)
        assert not np.allclose(array, model()[key], atol=0.01)


@pytest.mark.parametrize("name", OURS)
def test_like_flower_with_lists(name):
    options, make, before = OURS[name]
    first = ndarrays_to_parameters(list(model().values()))
    theirs = run(legacy_round, getattr(legacy, name)(initial_parameters=first, **options), model())
    own = schuss.flower.LegacyFedOpt(make, steps_before=before, initial_parameters=first)
    ours = run(legacy_round, own, model())
    for key, array in theirs.items():
        np.testing.assert_allclose(ours[key], array, rtol=1e-10, atol=1e-10)


def test_dtypes_stay_and_integers_pass_through():
    start = {**model(np.float32), "half": np.ones(3, np.float16), "count": np.array(7)}
    first = ndarrays_to_parameters(list(start.values()))
    for play, strategy in (
        (modern_round, schuss.flower.FedOpt(lambda a: schuss.Adam(a, lr=0.1))),
        (legacy_round, schuss.flower.LegacyFedOpt(lambda a: schuss.Adam(a, lr=0.1), initial_parameters=first)),
    ):
        end = run(play, strategy, start)
        assert {n: a.dtype for n, a in end.items()} == {n: a.dtype for n, a in start.items()}
        assert end["count"] == 7 and list(end) == list(start)
        assert not np.array_equal(end["half"], start["half"])


@pytest.mark.parametrize("play", [modern_round, legacy_round])
def test_saving_and_resuming_has_the_same_bits(play, tmp_path):
    kind = schuss.flower.FedOpt if play is modern_round else schuss.flower.LegacyFedOpt
    start = {**model(np.float32), "count": np.array(7)}
    first = ndarrays_to_parameters(list(start.values()))
    options = {} if play is modern_round else {"initial_parameters": first}
    strategy = kind(lambda a: schuss.Adam(a, lr=0.1), **options)
    middle = run(play, strategy, start, range(1, 4))
    strategy.save(tmp_path / "server")
    end = run(play, strategy, middle, range(4, 6))
    resumed = kind(lambda a: schuss.Adam(a, lr=0.1), **options)
    loaded = resumed.load(tmp_path / "server", record(start) if play is modern_round else first)
    arrays = (
        {name: array.numpy() for name, array in loaded.items()}
        if play is modern_round
        else dict(zip(start, parameters_to_ndarrays(loaded), strict=True))
    )
    assert all(np.array_equal(arrays[name], middle[name]) for name in start)
    assert resumed.optimizer.step_count == 3
    again = run(play, resumed, arrays, range(4, 6))
    assert all(np.array_equal(again[name], end[name]) for name in start)


def test_wrong_calls():
    with pytest.raises(TypeError, match=r"^make is a Adam; it must be a function of a dict of arrays"):
        schuss.flower.FedOpt(schuss.Adam(np.ones(3)))
    strategy = schuss.flower.FedOpt(lambda arrays: arrays)
    with pytest.raises(TypeError, match=r"^make returned a dict; it must return an optimizer of schuss$"):
        modern_round(strategy, 1, model())
    with pytest.raises(TypeError, match=r"^make returned NAG, whose step takes more than gradients; use another"):
        modern_round(schuss.flower.FedOpt(schuss.NAG), 1, model())
    with pytest.raises(RuntimeError, match=r"^there is nothing to save before the first round$"):
        strategy.save("server")
    server = schuss.flower.FedOpt(lambda arrays: schuss.SGD(arrays, lr=1.0))._server
    before = model()
    for average, message in (
        ({"w": before["w"]}, "the clients' arrays lack 'b'; they must be those of the server: 'w', 'b'"),
        (
            {**before, "c": before["b"]},
            "the clients' arrays have unknown 'c'; they must be those of the server: 'w', 'b'",
        ),
        (
            {"w": before["w"], "b": np.ones(4)},
            "the clients' arrays have 'b' with shape (4,), but the server has it with (3,)",
        ),
    ):
        with pytest.raises(ValueError) as raised:
            server.step(before, average)
        assert str(raised.value) == message and server.optimizer is None


WRONG_CLIENTS = {
    "one element": (
        {"w": np.ones(1)},
        "the clients' arrays have {w} with shape (1,), but the server has it with (4, 3)",
    ),
    "a row": (
        {"b": np.ones((1, 3))},
        "the clients' arrays have {b} with shape (1, 3), but the server has it with (3,)",
    ),
    "no bias": ({"b": None}, "the clients' arrays lack {b}; they must be those of the server: {w}, {b}"),
}


@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("what", WRONG_CLIENTS)
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("play", [modern_round, legacy_round])
def test_a_client_with_another_model_is_refused(play, begun, what, at, monkeypatch):
    """Also one whose arrays could be broadcast: the average would have other values, and the server's shapes."""
    changed, message = WRONG_CLIENTS[what]
    kind = schuss.flower.FedOpt if play is modern_round else schuss.flower.LegacyFedOpt
    start = model()
    first = ndarrays_to_parameters(list(start.values()))
    options = {} if play is modern_round else {"initial_parameters": first}
    strategy = kind(lambda a: schuss.Adam(a, lr=0.1), **options)
    if begun:
        start = run(play, strategy, start, range(1, 2))
    before, own, seen = repr(strategy.optimizer and strategy.optimizer.state_dict()), client, []

    def wrong(arrays, seed):
        seen.append(seed)
        given = {**own(arrays, seed), **(changed if len(seen) == at + 1 else {})}
        return {name: array for name, array in given.items() if array is not None}

    monkeypatch.setitem(globals(), "client", wrong)
    with pytest.raises(ValueError) as raised:
        play(strategy, 2, start)
    names = {name: repr(name if play is modern_round else i) for i, name in enumerate(start)}
    assert str(raised.value) == message.format(**names)
    assert repr(strategy.optimizer and strategy.optimizer.state_dict()) == before


def test_a_round_before_the_model_is_known():
    for call in (
        lambda: schuss.flower.FedOpt(schuss.Adam).aggregate_train(1, []),
        lambda: schuss.flower.LegacyFedOpt(schuss.Adam).aggregate_fit(1, [], []),
    ):
        with pytest.raises(RuntimeError, match=r"^aggregate_\w+ needs the model of the round: call configure_"):
            call()


def test_a_round_without_replies_changes_nothing():
    strategy = schuss.flower.FedOpt(lambda arrays: schuss.SGD(arrays, lr=1.0))
    strategy.configure_train(1, record(model()), ConfigRecord(), Grid())
    assert strategy.aggregate_train(1, []) == (None, None)
    assert strategy.optimizer is None


@pytest.mark.parametrize("begun", [False, True])
def test_a_failed_call_changes_nothing(begun, tmp_path):
    """Neither the optimizer nor the server's arrays, also if it is given another model."""
    other = {name: array + 1 for name, array in model().items()}
    server = schuss.flower.FedOpt(lambda arrays: schuss.SGD(arrays, lr=1.0, nonfinite="error"))._server
    if begun:
        server.step(model(), client(model(), 1))
    optimizer, before = server.optimizer, {name: array.copy() for name, array in server._params.items()}
    schuss.save(tmp_path / "other", schuss.Adam(model(), lr=1.0))
    for call, error in (
        (lambda: server.load(tmp_path / "none", other), FileNotFoundError),
        (lambda: server.load(tmp_path / "other", other), ValueError),
        (lambda: server.step(other, {name: np.nan * array for name, array in other.items()}), FloatingPointError),
    ):
        with pytest.raises(error):
            call()
        assert server.optimizer is optimizer and before.keys() == server._params.keys()
        assert all(np.array_equal(server._params[name], array) for name, array in before.items())


COPIES = {
    "master": lambda arrays: schuss.SGD(arrays, lr=1.0, master_weights=True),
    "slow": lambda arrays: schuss.EMA(schuss.Lookahead(schuss.SGD(arrays, lr=1.0))),
    "z": lambda arrays: schuss.ScheduleFreeSGD(arrays, lr=1.0),
    "x0": lambda arrays: schuss.MADGRAD(arrays, lr=1.0),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_model_that_is_not_the_last_result_is_refused_where_the_optimizer_has_a_copy_of_that(name):
    average = {"w": np.ones(2, np.float16)}
    server = schuss.flower._Server(COPIES[name], 0)
    result = server.step({"w": np.zeros(2, np.float16)}, average)
    message = rf"^the server's model is not the result of the last round, .* in its state, '{name}'; go on with that"
    before = server.optimizer.step_count, server._params["w"].copy()
    with pytest.raises(ValueError, match=message):
        server.step({"w": np.array([1.0, 10.0], np.float16)}, average)
    assert (server.optimizer.step_count, before[1].tobytes()) == (before[0], server._params["w"].tobytes())
    server.step(result, average)
    assert server.optimizer.step_count == 2


@pytest.mark.parametrize("dtype", [">f4", ">f2", np.longdouble, np.complex64, "U3"])
def test_what_no_optimizer_can_train_is_no_counter(dtype):
    start = {"w": np.zeros(2, dtype), "b": np.zeros(1, np.float32), "seen": np.array(3), "mask": np.array([True])}
    server = schuss.flower._Server(lambda arrays: schuss.SGD(arrays, lr=1.0), 0)
    with pytest.raises((TypeError, ValueError), match=r"^params\['w'\] "):
        server.step(start, start)
    assert server.optimizer is None


@pytest.mark.parametrize(
    "given",
    [
        lambda arrays: {name: array.copy() for name, array in arrays.items()},
        lambda arrays: {"b": arrays["b"]},
        lambda arrays: list(arrays.values()),
        lambda arrays: [{"params": arrays}],
    ],
)
def test_make_returns_an_optimizer_of_what_it_was_given(given):
    server = schuss.flower._Server(lambda arrays: schuss.SGD(given(arrays), lr=1.0), 0)
    with pytest.raises(ValueError, match=r"^make returned an optimizer of other arrays than those of the dict"):
        server.step(model(), client(model(), 1))
    assert server.optimizer is None


@pytest.mark.parametrize("kind", [schuss.flower.FedOpt, schuss.flower.LegacyFedOpt])
@pytest.mark.parametrize("steps", [-1, 1.5, True, "1"])
def test_steps_before_are_checked_at_once(kind, steps):
    with pytest.raises((TypeError, ValueError), match=r"^steps_before must be a whole number >= 0"):
        kind(lambda arrays: schuss.SGD(arrays, lr=1.0), steps_before=steps)


def accumulating(arrays, lr):
    """An optimizer whose first step is not taken, but remembered."""
    return schuss.Transformed(schuss.SGD(arrays, lr=lr), [schuss.transforms.accumulate(2)])


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # a file that an interrupt drops is closed
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that sends signals")
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("call", ["step", "load"])
@pytest.mark.parametrize("kind", [schuss.Adam, schuss.Ranger, accumulating])
def test_all_or_nothing(kind, call, begun, tmp_path):
    """Of a model with so many arrays that assigning them takes time."""
    path = tmp_path / "server"
    one, other, average = ({str(i): np.full(5, value) for i in range(100)} for value in (1.0, 2.0, 3.0))

    def make():
        server = schuss.flower._Server(lambda arrays: kind(arrays, lr=0.1), 0)
        if begun:
            server.step(one, average)
        return server

    def image(server):
        states = [] if server.optimizer is None else [a for own in server.optimizer._states for a in own]
        known = server.optimizer and (server.optimizer.step_count, server.optimizer)
        return copy.deepcopy([*server._params.values(), *states]), repr(known)

    first = make()
    first.step(first.trained(one), average)
    schuss.save(path, first.optimizer)
    calls = {
        # Ranger goes on from the last result alone.
        "step": lambda server: server.step(server.trained(other) if kind is schuss.Ranger else other, average),
        "load": lambda server: server.load(path, other),
    }
    check_all_or_nothing(make, calls[call], calls["step"], image, f"{kind.__name__} {call}")
