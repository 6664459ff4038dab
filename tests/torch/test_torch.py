"""What holds for every class of schuss.torch, whether torch has one of that name or not."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from cases import MOVING, STATEFUL
from families.newton import hessian
from reference import defaults_of

import schuss
import schuss.torch
from schuss._backends import cuda_gradients, cuda_interop
from schuss._core.declaration import REQUIRED

# The package imports LBFGS on first use, so it is not in the registry.
KINDS = {**schuss.OPTIMIZERS, "LBFGS": schuss.LBFGS}
NAMES = list(KINDS)
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SHAPES = [(3, 5), (5,), (), (2, 3, 4), (0,)]


def tensors(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in SHAPES]


def arrays(own):
    return [schuss.torch._optimizer._tensors.array(tensor) for tensor in own]


def options_of(name):
    """Options with which the optimizer can be made, and moves."""
    return {
        **(dict(lr=0.1) if KINDS[name]._parameters["lr"].default is REQUIRED else {}),
        **MOVING.get(name, {}),
    }


def made(name, params, **options):
    return getattr(schuss.torch, name)(params, **{**options_of(name), **options})


def take(optimizer, params, seed):
    """A step with seeded gradients, by a closure, which every optimizer takes."""

    def closure():
        for param, gradient in zip(params, tensors(params[0].dtype, seed), strict=True):
            param.grad = gradient
        return 0.5

    more = {"hessian": hessian(sum(p.numel() for p in params))} if isinstance(optimizer, schuss.torch.Newton) else {}
    assert optimizer.step(closure, **more) == 0.5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_as_the_class_over_arrays(name, dtype):
    params = [torch.nn.Parameter(tensor) for tensor in tensors(dtype)]
    copies = arrays([tensor.clone() for tensor in tensors(dtype)])
    ours = made(name, params)
    plain = KINDS[name](copies, **options_of(name))
    for seed in range(1, 4):
        take(ours, params, seed)
        grads = arrays(tensors(dtype, seed))
        if type(ours)._takes_closure:
            plain.step(lambda grads=grads: (0.5, grads) if type(ours)._takes_loss else grads)
        elif name == "Newton":
            plain.step(grads, hessian(sum(p.size for p in copies)))
        else:
            plain.step(grads)
    for param, expected in zip(arrays(params), copies, strict=True):
        assert param.tobytes() == expected.tobytes()
    assert dtype != torch.float64 or not np.array_equal(copies[0], arrays(tensors(dtype))[0])


@pytest.mark.parametrize("way", ["load_state_dict", "deepcopy", "pickle"])
@pytest.mark.parametrize("name", NAMES)
def test_resuming_has_the_same_bits(name, way):
    options = STATEFUL.get(name, {})
    params = [torch.nn.Parameter(tensor) for tensor in tensors(torch.float32)]
    optimizer = made(name, params, **options)
    for seed in (1, 2):
        take(optimizer, params, seed)
    if way == "load_state_dict":
        twins = [torch.nn.Parameter(param.detach().clone()) for param in params]
        other = made(name, twins, **options)
        other.load_state_dict(optimizer.state_dict())  # its tensors are the live ones: they must be copied
    else:
        other = copy.deepcopy(optimizer) if way == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
        twins = other.param_groups[0]["params"]
    for seed in (3, 4):
        take(optimizer, params, seed)
        take(other, twins, seed)
    for one, two in zip(params, twins, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("options", [dict(state_dtype="int8"), dict(master_weights=True), dict(max_grad_norm=0.1)])
def test_options_of_the_whole_optimizer(options):
    dtype = torch.bfloat16
    params, copies = [torch.nn.Parameter(t) for t in tensors(dtype)], arrays(tensors(dtype))
    optimizer, plain = schuss.torch.AdamW(params, lr=0.1, **options), schuss.AdamW(copies, lr=0.1, **options)
    for seed in (1, 2):
        take(optimizer, params, seed)
        plain.step(arrays(tensors(dtype, seed)))
    other = pickle.loads(pickle.dumps(optimizer))
    twins = other.param_groups[0]["params"]
    take(other, twins, 3)
    take(optimizer, params, 3)
    plain.step(arrays(tensors(dtype, 3)))
    for param, twin, expected in zip(arrays(params), arrays(twins), copies, strict=True):
        assert param.tobytes() == twin.tobytes() == expected.tobytes()
    assert optimizer.grad_norm == plain.grad_norm


def test_master_weights_of_a_mixed_model():
    """Only parameters of 16 bits have copies, in any group."""
    norm, weight, twins = ones(5), ones(7, dtype=torch.bfloat16), [ones(5), ones(7)]
    optimizer = schuss.torch.AdamW([{"params": [norm]}, {"params": [weight]}], lr=0.01, master_weights=True)
    other = schuss.torch.AdamW(twins, lr=0.01)
    for seed in range(3):
        for param, twin in zip((norm, weight), twins, strict=True):
            param.grad = torch.full_like(param, 1.0 + seed)
            twin.grad = param.grad.float()
        optimizer.step()
        other.step()
    assert torch.equal(norm, twins[0]) and torch.equal(weight, twins[1].bfloat16())
    assert ["master" in optimizer.state[param] for param in (norm, weight)] == [False, True]
    again = schuss.torch.AdamW([{"params": [norm]}, {"params": [weight]}], master_weights=True)
    again.load_state_dict(optimizer.state_dict())
    assert torch.equal(again.state[weight]["master"], twins[1])


def test_groups_of_ranger():
    """What all groups have in common is no option of a group."""
    params, copies = [ones(5), ones(7)], [np.ones(5, np.float32), np.ones(7, np.float32)]
    groups = [{"params": [0], "lr": 0.1}, {"params": [1], "lr": 0.2}]
    optimizer, plain = (
        kind([{**group, "params": [own[i] for i in group["params"]]} for group in groups], k=2, alpha=0.25)
        for kind, own in ((schuss.torch.Ranger, params), (schuss.Ranger, copies))
    )
    for _ in range(4):
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()
        plain.step([[np.ones(5, np.float32)], [np.ones(7, np.float32)]])
    for param, expected in zip(arrays(params), copies, strict=True):
        assert param.tobytes() == expected.tobytes()
    optimizer.alpha = 0.75
    other = schuss.torch.Ranger([{"params": [param]} for param in params])
    other.load_state_dict(optimizer.state_dict())
    assert (other.k, other.alpha) == (2, 0.75)
    with pytest.raises(ValueError, match=r"^Ranger has one k, but param_groups have several$"):
        schuss.torch.Ranger([{"params": [ones(2)], "k": 3}, {"params": [ones(2)]}]).step_count  # noqa: B018


def test_a_process_without_parameters():
    assert schuss.torch.AdamW([{"params": []}], master_weights=True).step() is None


def test_options_set_later():
    """They count from the next step on, as in the package, and a copy and a new plan have them too."""
    params, copies = [torch.nn.Parameter(t) for t in tensors(torch.float64)], arrays(tensors(torch.float64))
    optimizer, plain = schuss.torch.Adam(params, lr=0.1), schuss.Adam(copies, lr=0.1)
    for seed, (name, value) in enumerate(
        [("max_grad_norm", 1e-3), ("track_grad_norm", True), ("nonfinite", "skip"), ("step_count", 7)]
    ):
        setattr(optimizer, name, value)
        setattr(plain, name, value)
        take(optimizer, params, seed)
        plain.step(arrays(tensors(torch.float64, seed)))
        assert getattr(optimizer, name) == getattr(plain, name)
    assert all(np.array_equal(p, q) for p, q in zip(arrays(params), copies, strict=True))
    assert optimizer.grad_norm == plain.grad_norm
    assert float(optimizer.state[params[0]]["step"]) == 8
    optimizer.step_count = 0
    assert optimizer.state_dict()["state"][0]["step"] == 0
    with pytest.raises(ValueError, match="nonfinite must be"):
        optimizer.nonfinite = "ignore"
    optimizer.add_param_group({"params": [ones(2)]})  # the next step makes a new plan
    for made in (optimizer, copy.deepcopy(optimizer)):
        assert (made.max_grad_norm, made.track_grad_norm, made.nonfinite) == (1e-3, True, "skip")
    none = schuss.torch.Adam([{"params": []}])  # as in a process that has no part of the parameters
    none.nonfinite = "error"
    assert none._options["nonfinite"] == "error"


def test_settings_set_later_are_kept():
    optimizer = schuss.torch.Ranger([ones(2)])
    optimizer.pullback = "reset"
    assert copy.deepcopy(optimizer).pullback == "reset"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("lr", "lr is a hyperparameter; set it in optimizer.param_groups[i]['lr']"),
        ("momentum", "momentum is a hyperparameter; set it in optimizer.param_groups[i]['momentum']"),
        ("state_dtype", "state_dtype of SGD cannot be set; give it to the constructor"),
        ("skipped_steps", "skipped_steps of SGD cannot be set; give your own attribute another name"),
        ("metrics", "metrics of SGD cannot be set; give your own attribute another name"),
    ],
)
def test_attributes_that_cannot_be_set(name, advice):
    """Nothing that is read from the package's optimizer is hidden by an attribute that no step looks at."""
    optimizer = schuss.torch.SGD([ones(2)], lr=0.1)
    with pytest.raises(AttributeError) as raised:
        setattr(optimizer, name, 0.5)
    assert str(raised.value) == advice
    assert optimizer.lr == 0.1


def format_of(state_dtype):
    return dict(state_dtype=state_dtype)


PLAIN, MASTER = dict(), dict(master_weights=True)
OTHER_FORMATS = [
    (torch.bfloat16, MASTER, PLAIN, "was saved with master_weights=True; make the optimizer with it to load this"),
    (torch.bfloat16, MASTER, format_of("bfloat16"), "was saved with master_weights=True; make the optimizer with it"),
    (torch.float32, format_of("bfloat16"), PLAIN, "was saved as torch.bfloat16, but here it is torch.float32; load"),
    (torch.float32, PLAIN, format_of("bfloat16"), "was saved as torch.float32, but here it is torch.bfloat16; load"),
    (torch.bfloat16, PLAIN, format_of("bfloat16"), "was saved as torch.float32, but here it is torch.bfloat16; load"),
    (torch.bfloat16, format_of("int8"), PLAIN, "was saved as torch.int8, but here it is torch.float32; load"),
    (torch.bfloat16, PLAIN, format_of("int8"), "lacks 'm_scale'"),
]


def loaded(dtype, saved, here):
    """An optimizer with the options `here`, and the state of another one with those `saved`."""
    param = ones(300, dtype=dtype)
    optimizer, other = (schuss.torch.AdamW([param], **options) for options in (saved, here))
    param.grad = torch.ones_like(param)
    optimizer.step()
    other.load_state_dict(optimizer.state_dict())
    return other.state[param]


@pytest.mark.parametrize(("dtype", "saved", "here", "message"), OTHER_FORMATS)
def test_a_state_of_another_format_is_refused(dtype, saved, here, message):
    with pytest.raises(ValueError) as raised:
        loaded(dtype, saved, here)
    assert message in str(raised.value)


def test_what_torchs_classes_save_is_of_every_plain_format():
    """States have the parameter's dtype there, and there are no master copies."""
    assert loaded(torch.bfloat16, format_of("bfloat16"), PLAIN)["exp_avg"].dtype == torch.float32
    assert torch.equal(loaded(torch.bfloat16, PLAIN, MASTER)["master"], torch.full((300,), 0.9990).bfloat16().float())


def test_schedule_free_modes():
    params, copies = [torch.nn.Parameter(t) for t in tensors(torch.float64)], arrays(tensors(torch.float64))
    optimizer, plain = schuss.torch.ScheduleFreeAdamW(params, lr=0.1), schuss.ScheduleFreeAdamW(copies, lr=0.1)
    take(optimizer, params, 1)
    plain.step(arrays(tensors(torch.float64, 1)))
    optimizer.eval()
    plain.eval()
    assert all(np.array_equal(p, q) for p, q in zip(arrays(params), copies, strict=True))
    with pytest.raises(RuntimeError, match="call train"):
        take(optimizer, params, 2)
    resumed = schuss.torch.ScheduleFreeAdamW(params, lr=0.1)
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.mode == "eval"
    resumed.train()
    plain.train()
    assert all(np.array_equal(p, q) for p, q in zip(arrays(params), copies, strict=True))


def test_methods_take_and_return_tensors():
    params, copies = [torch.nn.Parameter(t) for t in tensors(torch.float64)], arrays(tensors(torch.float64))
    optimizer, plain = schuss.torch.SophiaH(params, lr=0.1), schuss.SophiaH(copies, lr=0.1)
    estimate = [t.square() for t in tensors(torch.float64, 7)]
    optimizer.update_hessian(estimate)
    plain.update_hessian(arrays(estimate))
    take(optimizer, params, 1)
    plain.step(arrays(tensors(torch.float64, 1)))
    assert all(np.array_equal(p, q) for p, q in zip(arrays(params), copies, strict=True))
    average = schuss.torch.ASGD(params)
    take(average, params, 1)
    assert torch.equal(average.averaged()[0], params[0])


def test_a_stale_backward_pass_is_refused():
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = schuss.torch.SGD([param], lr=0.1)
    loss = (param**3).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_new_memory_and_replaced_states():
    """`param.data = ...` and new entries in `state` count, as with torch's own optimizers."""
    results = []
    for kind in (torch.optim.Adam, schuss.torch.Adam):
        param = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = kind([param], lr=0.1)

        def step(size, param=param, optimizer=optimizer):
            param.grad = torch.full((3,), size, dtype=torch.float64)
            optimizer.step()

        step(1.0)
        param.data = torch.tensor([5.0, 6.0, 7.0], dtype=torch.float64)
        step(2.0)
        optimizer.state[param]["exp_avg"] = torch.zeros(3, dtype=torch.float64)
        step(3.0)
        optimizer.state[param]["exp_avg_sq"].mul_(2.0)
        step(4.0)
        optimizer.state.clear()
        step(5.0)
        results.append((param.detach(), float(optimizer.state[param]["step"])))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-12, atol=0)
    assert results[1][1] == results[0][1] == 1


def test_a_failed_load_changes_nothing():
    param, other = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(4))
    optimizer, wider = schuss.torch.Adam([param], lr=0.1), schuss.torch.Adam([other], lr=0.2)
    for own, of in ((optimizer, param), (wider, other)):
        of.grad = torch.ones_like(of)
        own.step()
    saved = copy.deepcopy(optimizer.state_dict())
    cases = [
        (wider.state_dict(), "'exp_avg' of param_groups[0]['params'][0] has shape (4,), but here it has (3,)"),
        (
            {**saved, "state": {0: {"step": torch.tensor(1.0), "sum": torch.ones(3)}}},
            "the state of param_groups[0]['params'][0] lacks 'exp_avg': it has step, sum; it must come from the same "
            "optimizer, with the same options",
        ),
        ({**saved, "param_groups": [{**saved["param_groups"][0], "lr": -1.0}]}, "lr must be a number >= 0, got -1.0"),
    ]
    for state, message in cases:
        with pytest.raises(ValueError) as raised:
            optimizer.load_state_dict(state)
        assert str(raised.value) == message
        assert optimizer.param_groups[0]["lr"] == 0.1
        assert torch.equal(optimizer.state[param]["exp_avg"], saved["state"][0]["exp_avg"])


def test_a_failed_step_changes_nothing():
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = schuss.torch.Adam([param], lr=0.1, nonfinite="error")
    param.grad = torch.tensor([1.0, float("nan"), 1.0])
    with pytest.raises(FloatingPointError, match=r"grads\[0\] has a NaN or infinity, first at \(1,\)"):
        optimizer.step()
    assert torch.equal(param.detach(), torch.ones(3)) and not optimizer.state
    skips = schuss.torch.Adam([param], lr=0.1, nonfinite="skip")
    skips.step()
    assert torch.equal(param.detach(), torch.ones(3)) and not skips.state and skips.skipped_steps == 1


def test_an_interrupt_after_the_step(monkeypatch):
    """The step itself is one native call; what torch is told after it is made up for later."""
    params = [torch.nn.Parameter(tensor) for tensor in tensors(torch.float32)]
    optimizer, plan = schuss.torch.Adam(params), schuss.torch._optimizer.Plan
    take(optimizer, params, 1)
    for stop in (KeyboardInterrupt, MemoryError):
        with monkeypatch.context() as patch:
            patch.setattr(plan, "follow", lambda *_, stop=stop: (_ for _ in ()).throw(stop))
            with pytest.raises(stop):
                take(optimizer, params, 2)
    # Each was stopped before its step.
    assert float(optimizer.state_dict()["state"][0]["step"]) == 1
    with monkeypatch.context() as patch:
        patch.setattr(plan, "fits", lambda *_: patch.setattr(plan, "follow", lambda *_: 1 / 0) or True)
        with pytest.raises(ZeroDivisionError):
            take(optimizer, params, 2)
    # This one after it.
    assert float(optimizer.state_dict()["state"][0]["step"]) == 2
    take(optimizer, params, 3)
    assert float(optimizer.state[params[0]]["step"]) == 3


def ones(*shape, **options):
    return torch.nn.Parameter(torch.ones(*shape, **options))


def test_the_signature_is_that_of_the_package():
    import inspect

    assert inspect.signature(schuss.torch.AdamW) == inspect.signature(schuss.AdamW)
    assert schuss.torch.AdamW([ones(3)], 0.5).defaults["lr"] == 0.5
    assert set(schuss.torch.Adam([ones(3)]).defaults) == set(defaults_of("Adam")) - {
        "max_grad_norm", "nonfinite", "state_dtype", "state_rounding", "state_seed", "master_weights"
    }  # fmt: skip


def test_a_sparse_gradient_on_a_gpu_is_refused_with_a_message():
    """It has no pointer by which a step could know it again; `describe` sees it before anything about a GPU."""
    sparse = torch.eye(2).to_sparse()
    assert cuda_gradients._key(sparse) is None and cuda_gradients._key(torch.eye(2)) is not None
    with pytest.raises(TypeError, match=r"^grads is a sparse tensor; pass a dense one"):
        cuda_interop.describe("grads", sparse)


def test_importing_the_package_does_not_import_torch():
    code = (
        "import schuss, sys; print('torch' in sys.modules); import schuss.torch; print('torch._dynamo' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["False", "False"]
