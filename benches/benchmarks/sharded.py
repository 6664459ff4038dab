"""`schuss.mpi` on the processes of a job on this machine: time and parts of a step, traffic, memory, the model's error.

The job is ``benches/sharded.py``; without mpi4py and an MPI everything is nan.
"""

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

from .timing import SUITE

version = SUITE
PROGRAM = Path(__file__).parents[1] / "sharded.py"
NAN = float("nan")


@functools.cache
def job(processes, elements):
    """The figures of a job; empty where there is no MPI."""
    mpiexec = shutil.which("mpiexec", path=Path(sys.executable).parent) or shutil.which("mpiexec")
    if mpiexec is None:
        return {}
    command = [mpiexec, "-n", str(processes), sys.executable, "-m", "mpi4py", str(PROGRAM), str(elements)]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {}


class Sharded:
    """AdamW over float32, one thread a process."""

    params = [[1, 2, 4], [1 << 20, 1 << 23]]
    param_names = ["processes", "elements"]
    timeout = 300

    def track_step(self, processes, elements):
        return job(processes, elements).get("step", NAN)

    def track_clipped_step(self, processes, elements):
        return job(processes, elements).get("clipped", NAN)

    def track_update_alone(self, processes, elements):
        return job(processes, elements).get("update", NAN)

    def track_traffic(self, processes, elements):
        return job(processes, elements).get("traffic", NAN)

    def track_memory(self, processes, elements):
        return sum(job(processes, elements).get("memory", {"none": NAN}).values())

    def track_predicted_over_measured(self, processes, elements):
        found = job(processes, elements)
        return found["predicted"]["total"] / found["step"] if found else NAN

    track_step.unit = track_clipped_step.unit = track_update_alone.unit = "seconds"
    track_traffic.unit = track_memory.unit = "bytes"
    track_predicted_over_measured.unit = "times"
