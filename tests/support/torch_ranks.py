"""One of two processes that train the same model in parallel: run as ``torch_ranks.py RANK FOLDER``.

Each way of training is run with torch's AdamW and with ours, over the same data; the results of rank 0 are saved.
"""

import contextlib
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

import schuss.torch

KINDS = {"torch": torch.optim.AdamW, "schuss": schuss.torch.AdamW}
OPTIONS = dict(lr=0.02, weight_decay=0.1)
STEPS = 5


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.Tanh(), torch.nn.Linear(10, 3)).double()


def train(network, optimizer, rank, steps=range(STEPS)):
    for step in steps:
        x = torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2 * step + rank))
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


def ddp(kind, rank):
    network = DistributedDataParallel(model())
    train(network, kind(network.parameters(), **OPTIONS), rank)
    return weights(network)


def zero(kind, rank):
    """The states are in one process each; its checkpoint has them all and is continued from."""
    network = DistributedDataParallel(model())
    optimizer = ZeroRedundancyOptimizer(network.parameters(), kind, **OPTIONS)
    train(network, optimizer, rank, range(3))
    optimizer.consolidate_state_dict(0)
    saved = [optimizer.state_dict() if rank == 0 else None]
    dist.broadcast_object_list(saved)
    resumed = ZeroRedundancyOptimizer(network.parameters(), kind, **OPTIONS)
    resumed.load_state_dict(saved[0])
    train(network, resumed, rank, range(3, STEPS))
    return weights(network)


def fsdp(kind, rank):
    network = FullyShardedDataParallel(model(), device_id=torch.device("cpu"), use_orig_params=True)
    optimizer = kind(network.parameters(), **OPTIONS)
    train(network, optimizer, rank)
    state = FullyShardedDataParallel.optim_state_dict(network, optimizer)["state"]
    with FullyShardedDataParallel.summon_full_params(network):
        return [*weights(network), *(state[name][key] for name in sorted(state) for key in sorted(state[name]))]


def fsdp2(kind, rank):
    """Parameters and states are distributed tensors; a whole checkpoint is gathered, and continued from."""
    mesh = dist.init_device_mesh("cpu", (2,))
    network = fully_shard(model(), mesh=mesh)
    optimizer = kind(network.parameters(), **OPTIONS)
    train(network, optimizer, rank, range(3))
    saved = get_optimizer_state_dict(network, optimizer)
    resumed = kind(network.parameters(), **OPTIONS)
    set_optimizer_state_dict(network, resumed, saved)
    train(network, resumed, rank, range(3, STEPS))
    state = resumed.state_dict()["state"][0]
    return [p.full_tensor() for p in weights(network)] + [state["exp_avg"].full_tensor()]


def stepping(kind, rank):
    """With distributed tensors, gradients are those of all processes when the hooks run."""
    network = fully_shard(model(), mesh=dist.init_device_mesh("cpu", (2,)))
    optimizer = kind(network.parameters(), **OPTIONS)
    for step in range(STEPS):
        x = torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2 * step + rank))
        optimizer.zero_grad()
        loss = network(x).square().mean()
        with optimizer.stepping() if kind is KINDS["schuss"] else contextlib.nullcontext():
            loss.backward()
        if kind is KINDS["torch"]:
            optimizer.step()
    return [p.full_tensor() for p in weights(network)]


def message(call):
    try:
        call()
    except (RuntimeError, ValueError) as error:
        return str(error)


def refused():
    """What is refused because each process sees a part of the gradients only."""
    own = KINDS["schuss"]
    together = own(DistributedDataParallel(model()).named_parameters(), **OPTIONS)
    flat = FullyShardedDataParallel(model(), device_id=torch.device("cpu"), use_orig_params=True)
    network = fully_shard(model(), mesh=dist.init_device_mesh("cpu", (2,)))
    later = own(network.parameters(), **OPTIONS)
    return {
        "ddp": message(together.stepping().__enter__),
        "fsdp": message(own(flat.parameters(), **OPTIONS).stepping().__enter__),
        "clipped": message(lambda: own(network.parameters(), max_grad_norm=1.0)),
        "measured": message(lambda: own(network.named_parameters(), track_grad_norm=True)),
        "skipped": message(lambda: own(network.parameters(), nonfinite="skip")),
        "later": message(lambda: setattr(later, "max_grad_norm", 1.0)),
        "none": message(later.step),
    }


def main(rank, folder):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = {
        way.__name__: {name: way(kind, rank) for name, kind in KINDS.items()}
        for way in (ddp, zero, fsdp, fsdp2, stepping)
    }
    results["refused"] = refused()
    if rank == 0:
        torch.save(results, Path(folder) / "results.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
