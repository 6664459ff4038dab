"""Our classes against torch's own of the same name: on torch's own inputs, and with its checkpoints, both ways."""

import contextlib
import copy
import io
import warnings

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.testing._internal.common_optimizers import optim_db

import schuss.torch
from schuss.torch._names import BESIDES, NAMES

KINDS = {info.optim_cls.__name__: info for info in optim_db if hasattr(schuss.torch, info.optim_cls.__name__)}
# torch's takes matrices only, and multiplies them in bfloat16: the conformance tests compare its recorded figures.
KINDS.pop("Muon", None)
# torch keeps NAdam's product of momenta and ASGD's rates in float32.
TOLERANCE = {"NAdam": 1e-7, "ASGD": 1e-7}
# Not float16, in which torch's eps of 1e-8 is zero.
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
# Options that say how torch should compute, and need a GPU or have no meaning here.
OPTIONS = {
    "SGD": dict(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "RMSprop": dict(momentum=0.5, centered=True),
    "Adam": dict(amsgrad=True, weight_decay=0.1),
    "ASGD": dict(t0=2.0, lambd=0.1),
    "Adagrad": dict(initial_accumulator_value=0.1, lr_decay=0.1),
    "Adadelta": dict(lr=0.5),
}


def network(dtype=torch.float64):
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 2)).to(dtype)


def train(net, optimizer, steps, first=0):
    """Trains on seeded data, and returns the parameters."""
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(9, 5, generator=generator, dtype=torch.float64).to(net[0].weight.dtype)

        def closure(x=x):
            optimizer.zero_grad()
            loss = (net(x) ** 2).mean()
            loss.backward()
            return loss

        optimizer.step(closure)
    return [p.detach() for p in net.parameters()]


def assert_close(ours, theirs, tolerance=1e-12):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def pair(name, dtype=torch.float64, **options):
    """The same network twice, with torch's optimizer and with ours."""
    theirs, ours = network(dtype), network(dtype)
    return (
        (theirs, getattr(torch.optim, name)(theirs.parameters(), **copy.deepcopy(options))),
        (ours, getattr(schuss.torch, name)(ours.parameters(), **copy.deepcopy(options))),
    )


def inputs():
    for name, info in KINDS.items():
        for given in info.optim_inputs_func("cpu", torch.float64):
            yield pytest.param(name, given.kwargs, id=f"{name}, {given.desc}")


def test_all_of_torchs_optimizers_are_met():
    # What torch has besides: not one that a user could take ours for.
    assert {info.optim_cls.__name__ for info in optim_db} - set(KINDS) <= {"LBFGS", "Muon", "SparseAdam"}
    assert len(KINDS) >= 12


@pytest.mark.parametrize(("name", "options"), list(inputs()))
def test_torchs_inputs(name, options):
    if name == "Adam" and options.get("decoupled_weight_decay"):
        with pytest.raises(TypeError, match="decoupled_weight_decay"):
            pair(name, **options)
        return
    # Ascending, or once it has converged, LBFGS multiplies rounding errors.
    options, steps = ({**options, "max_iter": 3}, 1) if name == "LBFGS" else (options, 6)
    (net, theirs), (own, ours) = pair(name, **options)
    assert_close(train(own, ours, steps), train(net, theirs, steps), TOLERANCE.get(name, 1e-9))


def error_inputs():
    for name, info in KINDS.items():
        for given in info.optim_error_inputs_func("cpu", torch.float64):
            yield pytest.param(name, given, id=f"{name}, {given.optimizer_error_input.desc}")


# What has no effect here, or may be mixed.
ALLOWED = ("foreach", "betas must be either")


@pytest.mark.parametrize(("name", "given"), list(error_inputs()))
def test_torchs_error_inputs(name, given):
    kind, made = getattr(schuss.torch, name), given.optimizer_error_input
    params = [torch.nn.Parameter(torch.ones(1, 1))] if made.params is None else made.params
    if any(word in given.error_regex for word in ALLOWED):
        kind(params, **made.kwargs)
    elif issubclass(given.error_type, Warning):
        twice = pytest.raises(ValueError, match=r"\['params'\]\[1\] is the same memory as .*list a shared array once")
        refused = twice if "duplicate" in given.error_regex else contextlib.nullcontext()
        with pytest.warns(given.error_type, match=given.error_regex), refused:
            kind(params, **made.kwargs)
    elif "lr must be 1-element" in given.error_regex:
        with pytest.raises(ValueError, match=r"^lr is a tensor of shape \(2,\); it must have one element$"):
            kind(params, **made.kwargs)
    elif "complex" in given.error_regex:  # torch says so at the first step only
        with pytest.raises(TypeError, match=r"has dtype torch\.complex64; it must be float32"):
            kind(params, **made.kwargs)
    else:
        with pytest.raises((given.error_type, TypeError)) as raised:
            kind(params, **made.kwargs).step(lambda: 0.0)
        # Its own words about parameters; about options the package's, which name the option.
        wrong = set(made.kwargs) - {"lr"} or set(made.kwargs)
        assert made.params is not None or any(option in str(raised.value) for option in wrong)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [name for name in KINDS if name in {*NAMES, *BESIDES}])
def test_checkpoints_go_both_ways(name, dtype):
    """Training goes on as if the optimizer had not been changed, also through a file."""
    options = OPTIONS.get(name, {})
    tolerance = {torch.float64: TOLERANCE.get(name, 1e-9), torch.float32: 2e-5}.get(dtype, 0.05)
    (net, theirs), (own, ours) = pair(name, dtype, **options)
    train(net, theirs, 3)
    train(own, ours, 3)
    own.load_state_dict(net.state_dict())  # so that what follows depends on the states alone
    file = io.BytesIO()
    torch.save([theirs.state_dict(), ours.state_dict()], file)
    file.seek(0)
    saved = torch.load(file)
    (other, to_torch), (another, to_ours) = pair(name, dtype, **options)
    other.load_state_dict(net.state_dict())
    another.load_state_dict(net.state_dict())
    to_torch.load_state_dict(saved[1])
    to_ours.load_state_dict(saved[0])
    expected = train(net, theirs, 3, 3)
    assert_close(train(other, to_torch, 3, 3), expected, tolerance)
    assert_close(train(another, to_ours, 3, 3), expected, tolerance)


def weights():
    torch.manual_seed(3)
    return [torch.nn.Parameter(torch.randn(4, 3))]


def stepped(kind, **options):
    """An optimizer of torch after a step."""
    (weight,) = weights()
    optimizer = kind([weight], lr=0.1, **options)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("name", ["Adam", "LARS", "Lion", "Muon", "NAG", "Signum"])
def test_states_that_lack_something(name):
    """torch's SGD and Muon save no step count, but a momentum, which another class must not begin anew unnoticed."""
    for kind in (torch.optim.SGD, torch.optim.Muon):
        theirs, ours = stepped(kind, momentum=0.9), getattr(schuss.torch, name)(weights(), lr=0.1)
        with pytest.raises(ValueError, match=r"lacks '\w+': it has momentum_buffer; it must come from the same optim"):
            ours.load_state_dict(theirs.state_dict())
    state = stepped(torch.optim.AdamW).state_dict()
    del state["state"][0]["step"]
    with pytest.raises(ValueError, match="lacks 'step': it has exp_avg, exp_avg_sq; it must come from the same optim"):
        schuss.torch.AdamW(weights()).load_state_dict(state)


def test_only_sgd_needs_no_step_count():
    state = stepped(torch.optim.SGD, momentum=0.9).state_dict()
    (weight,) = weights()
    ours = schuss.torch.SGD([weight], lr=0.1, momentum=0.9)
    ours.load_state_dict(state)
    assert float(ours.state[weight]["step"]) == 1
    # As earlier versions of torch saved a momentum that has not started.
    ours.load_state_dict({**state, "state": {0: {"momentum_buffer": None}}})
    weight.grad = torch.ones_like(weight)
    ours.step()
    assert float(ours.state[weight]["step"]) == 1 and torch.equal(ours.state[weight]["momentum_buffer"], weight.grad)


def test_decoupled_weight_decay_of_torchs_adam():
    state = stepped(torch.optim.Adam, weight_decay=0.5, decoupled_weight_decay=True).state_dict()
    message = "^decoupled_weight_decay is True, but Adam adds weight decay to the gradient; use a class"
    ours = schuss.torch.Adam(weights())
    with pytest.raises(ValueError, match=message):
        ours.load_state_dict(state)
    with pytest.raises(ValueError, match=message):
        schuss.torch.Adam([{"params": weights(), "decoupled_weight_decay": True}], weight_decay=0.1)
    schuss.torch.Adam([{"params": weights(), "decoupled_weight_decay": True}])  # without decay both are the same
    schuss.torch.AdamW(weights()).load_state_dict(state)
    ours.load_state_dict(stepped(torch.optim.Adam, weight_decay=0.5).state_dict())


def test_states_of_16_bit_parameters_stay_float32():
    """torch's own class would round them on loading; a resumed run of ours has the same bits."""
    (_, _), (own, ours) = pair("AdamW", torch.bfloat16)
    train(own, ours, 3)
    twin = copy.deepcopy(own)
    resumed = schuss.torch.AdamW(twin.parameters())
    resumed.load_state_dict(copy.deepcopy(ours.state_dict()))
    assert {s["exp_avg"].dtype for s in resumed.state.values()} == {torch.float32}
    assert_close(train(twin, resumed, 4, 3), train(own, ours, 4, 3), 0.0)


SCHEDULERS = {
    "SequentialLR": lambda opt: torch.optim.lr_scheduler.SequentialLR(
        opt,
        [
            torch.optim.lr_scheduler.LinearLR(opt, 0.1, total_iters=3),
            torch.optim.lr_scheduler.CosineAnnealingLR(opt, 5),
        ],
        milestones=[3],
    ),
    "OneCycleLR, with momentum": lambda opt: torch.optim.lr_scheduler.OneCycleLR(opt, 0.1, total_steps=10),
    "CyclicLR, with momentum": lambda opt: torch.optim.lr_scheduler.CyclicLR(opt, 0.01, 0.1, step_size_up=3),
    # It ends at -7e-19.
    "LinearLR, to 0": lambda opt: torch.optim.lr_scheduler.LinearLR(opt, end_factor=0.0, total_iters=5),
    "ReduceLROnPlateau": lambda opt: torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=1),
}


@pytest.mark.parametrize("rate", [0.05, torch.tensor(0.05, dtype=torch.float64)], ids=["number", "tensor"])
@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers(scheduler, name, rate):
    results = []
    for net, optimizer in pair(name, lr=rate, **(dict(momentum=0.9) if name == "SGD" else {})):
        follows = SCHEDULERS[scheduler](optimizer)
        for step in range(9):
            train(net, optimizer, 1, step)
            follows.step(*([1.0] if "Plateau" in scheduler else []))
        results.append([p.detach() for p in net.parameters()])
    assert_close(results[1], results[0], 1e-9)


def test_parameters_without_gradient_are_left_alone():
    """Each parameter counts its own steps, and has no state before its first gradient."""
    results, states = [], []
    for net, optimizer in pair("AdamW", lr=0.1):
        for step in range(6):
            optimizer.zero_grad()
            (net(torch.ones(2, 5, dtype=torch.float64)) ** 2).sum().backward()
            if step < 3:
                net[0].weight.grad = None
            if step % 2:
                net[2].bias.grad = None
            optimizer.step()
            if step == 1:
                assert net[0].weight not in optimizer.state and net[0].bias in optimizer.state
        results.append([p.detach() for p in net.parameters()])
        states.append([float(optimizer.state[p]["step"]) for p in net.parameters()])
        optimizer.zero_grad()
        optimizer.step()  # nothing has a gradient
        assert_close([p.detach() for p in net.parameters()], results[-1], 0.0)
    assert states[0] == states[1] == [3, 6, 6, 3]
    assert_close(results[1], results[0])


def test_missed_steps_are_in_checkpoints():
    (net, theirs), (own, ours) = pair("Adam", lr=0.1)
    for module, optimizer in ((net, theirs), (own, ours)):
        module[0].weight.requires_grad_(False)
        train(module, optimizer, 3)
        module[0].weight.requires_grad_(True)
        train(module, optimizer, 2, 3)
    resumed = schuss.torch.Adam(net.parameters(), lr=0.1)
    resumed.load_state_dict(copy.deepcopy(theirs.state_dict()))
    assert_close(train(net, resumed, 3, 5), train(own, ours, 3, 5))


def test_groups_and_hooks():
    results, calls = [], []
    for net, optimizer in pair("SGD", lr=0.1, momentum=0.9):
        parts = list(net.parameters())
        kind = type(optimizer)
        optimizer = kind([{"params": parts[:2], "lr": 0.01}, {"params": parts[2]}], lr=0.1, momentum=0.9)
        optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
        optimizer.register_step_post_hook(lambda *_: calls.append("after"))
        train(net, optimizer, 2)
        optimizer.add_param_group({"params": parts[3], "weight_decay": 0.5})
        optimizer.param_groups[0]["lr"] = 0.2
        results.append(train(net, optimizer, 3, 2))
        assert [len(group["params"]) for group in optimizer.state_dict()["param_groups"]] == [2, 1, 1]
    assert calls == ["before", "after"] * 10
    assert_close(results[1], results[0])


def test_global_hooks_and_the_profiler_see_steps():
    names, calls = [], []
    handles = [
        register_optimizer_step_pre_hook(lambda *_: calls.append("before")),
        register_optimizer_step_post_hook(lambda *_: calls.append("after")),
    ]
    for net, optimizer in pair("AdamW"):
        train(net, optimizer, 1)
    for handle in handles:
        handle.remove()
    for net, optimizer in pair("AdamW"):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            train(net, optimizer, 2)
        names.append([(e.key, e.count) for e in profile.key_averages() if e.key.startswith("Optimizer.step")])
    assert calls == ["before", "after"] * 2
    assert names == [[("Optimizer.step#AdamW.step", 2)]] * 2


def test_grad_scaler_skips_and_unscales():
    results = []
    for net, optimizer in pair("AdamW", torch.float32, lr=0.05):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for step in range(5):
            optimizer.zero_grad()
            loss = (net(torch.ones(2, 5)) ** 2).mean()
            scaler.scale(loss * (float("inf") if step == 2 else 1.0)).backward()
            if step % 2:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()
        results.append([p.detach() for p in net.parameters()])
        assert float(optimizer.state[net[0].weight]["step"]) == 4
        assert scaler.get_scale() == 512.0
    assert_close(results[1], results[0], 1e-6)


def test_averaged_model():
    results = []
    for net, optimizer in pair("AdamW"):
        average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
        for step in range(4):
            train(net, optimizer, 1, step)
            average.update_parameters(net)
        results.append([p.detach() for p in average.parameters()])
    assert_close(results[1], results[0])


def test_distributed_state_dict_in_one_process():
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    (net, theirs), (own, ours) = pair("AdamW")
    train(net, theirs, 2)
    train(own, ours, 2)
    one, other = get_optimizer_state_dict(net, theirs), get_optimizer_state_dict(own, ours)
    assert set(one["state"]) == set(other["state"]) == set(dict(net.named_parameters()))
    resumed = schuss.torch.AdamW(net.parameters())
    set_optimizer_state_dict(net, resumed, one)
    assert_close(train(net, resumed, 2, 2), train(own, ours, 2, 2))


def test_channels_last():
    results = []
    for kind in (torch.optim.AdamW, schuss.torch.AdamW):
        torch.manual_seed(0)
        net = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        optimizer = kind(net.parameters(), lr=0.1)
        for layout in (torch.channels_last, torch.contiguous_format):
            for _ in range(2):
                optimizer.zero_grad()
                net(torch.ones(2, 3, 5, 6).to(memory_format=layout)).square().mean().backward()
                net.weight.grad = net.weight.grad.to(memory_format=layout)
                optimizer.step()
        assert net.weight.is_contiguous(memory_format=torch.channels_last)
        state = optimizer.state[net.weight]["exp_avg"]
        assert state.shape == net.weight.shape
        results.append([net.weight.detach(), net.bias.detach(), state])
    assert_close(results[1], results[0], 1e-6)


def test_compiled_step():
    (net, theirs), (own, ours) = pair("AdamW")
    expected = train(net, theirs, 2)
    ours.step = torch.compile(ours.step, backend="eager")
    with warnings.catch_warnings(), contextlib.suppress(RuntimeError):
        warnings.simplefilter("ignore")
        assert_close(train(own, ours, 2), expected)
        return
    raise AssertionError("torch.compile(optimizer.step) does not run")
