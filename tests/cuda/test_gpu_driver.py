"""What a step asks of the CUDA driver, read from the emulator's log: launches, copies, streams."""

import gpu
from gpu_pairs import assert_same, emulated, normal, pair, step_both

import schuss

pytestmark = emulated


def test_a_step_does_not_synchronize():
    opt = schuss.AdamW([gpu.Array(normal(100, seed=i)) for i in range(1000)], max_grad_norm=1.0)
    grads = [gpu.Array(normal(100, seed=i)) for i in range(1000)]
    opt.step(grads)
    gpu.log()
    opt.step(grads)
    assert gpu.log() == [
        "order 0x1 before 0x1", "fill 8 0x1", "launch stage0_blocks 1000 0x1", "launch stage1_all 1 0x1",
        "launch stage0_elements 1000 0x1", "record 0x1", "record 0x1",
    ]  # fmt: skip
    moved = [gpu.Array(normal(100, seed=i)) for i in range(1000)]
    gpu.log()
    opt.step(moved)
    assert [line for line in gpu.log() if not line.startswith("pin")][1:3] == ["copy 8000 to-device 0x1", "record 0x1"]


def test_shared_states_stay_on_the_device_until_they_are_read():
    opt = schuss.Prodigy([gpu.Array(normal(100))])
    grads = [gpu.Array(normal(100, seed=1))]
    opt.step(grads)
    gpu.log()
    for _ in range(3):
        opt.step(grads)
    assert not any(line.startswith(("wait", "synchronize", "copy")) for line in gpu.log())
    first = opt.state_dict()["shared"]
    assert gpu.log()[1:4] == ["wait 0x1", "copy 24 to-host 0x1", "synchronize 0x1"]
    opt.state_dict()
    assert not any(line.startswith(("wait", "copy 24")) for line in gpu.log())
    first["d_max"][...] = 0.5
    gpu.log()
    opt.step(grads)
    assert [line for line in gpu.log() if line.startswith("copy")] == ["copy 24 to-device 0x1"]
    assert opt.state_dict()["shared"]["d_max"] == 0.5


def test_many_steps_can_be_queued():
    """The lazy emulator runs all of them at the end: the memory that each one uses must still exist then."""
    values = [normal(100, seed=i) for i in range(20)]
    here, there = pair(schuss.AdamW, values, max_grad_norm=1.0)
    grads = [[gpu.Array(normal(100, seed=100 * t + i)) for i in range(20)] for t in range(5)]
    copies = [[g.host for g in own] for own in grads]
    for t in range(12):
        assert there.step(grads[t % 5])
        here.step(copies[t % 5])
    assert not any(line.startswith(("synchronize", "wait", "free")) for line in gpu.log()[-60:])
    assert_same(here, there)


def test_each_stage_is_launched_once_per_group():
    big = schuss.LAMB(
        [{"params": [gpu.Array(normal(50_000))]}, {"params": [gpu.Array(normal(3)), gpu.Array(normal(0))], "lr": 0.1}]
    )
    grads = [[gpu.Array(normal(50_000))], [gpu.Array(normal(3)), gpu.Array(normal(0))]]
    big.step(grads)
    launches = [line.split()[1:3] for line in gpu.log() if line.startswith("launch")]
    assert launches == [
        ["stage0_blocks", "5"], ["stage1_all", "1"],  # clipping's norm; the other launches are the step
        ["stage0_blocks", "4"], ["stage0_blocks", "1"], ["stage0_arrays", "1"], ["stage0_arrays", "1"],
        ["stage2_elements", "4"], ["stage2_elements", "1"],
    ]  # fmt: skip


def test_a_step_is_ordered_with_the_stream_of_the_gradients():
    opt = schuss.SGD(gpu.Array(normal(4)))
    opt.step(gpu.Array(normal(4)))
    grads = gpu.Array(normal(4), stream=0x77)
    gpu.log()
    opt.step(grads)
    lines = gpu.log()
    launch = next(i for i, line in enumerate(lines) if line.startswith("launch"))
    assert lines.index("order 0x77 before 0x1") < launch < lines.index("order 0x1 before 0x77")
    assert not any(line.split()[0] in ("synchronize", "wait") for line in lines)


def test_a_step_runs_in_the_current_stream_of_the_library(monkeypatch):
    now = [0x51]
    monkeypatch.setattr("schuss._backends.cuda_arrays.current_stream", lambda framework, device: now[0])
    here, there = pair(schuss.Adam, [normal(5000)])
    for t in range(4):
        step_both(here, there, [normal(5000, seed=t)])
        now[0] ^= 3  # the next step runs in another stream, and waits for this one
    lines = gpu.log()
    assert sum(line.startswith("launch stage0_elements 1 0x5") for line in lines) == 4
    assert "order 0x51 before 0x52" in lines and "order 0x52 before 0x51" in lines
    assert_same(here, there)


def test_freeing_an_optimizer_waits_for_the_gpu():
    param, grad = gpu.Array(normal(4)), gpu.Array(normal(4))  # not the optimizer's to free
    opt = schuss.SGD(param)
    opt.step(grad)
    gpu.log()
    del opt
    assert next(line for line in gpu.log() if line.startswith(("free", "wait"))) == "wait 0x1"
