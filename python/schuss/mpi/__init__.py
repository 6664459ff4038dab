"""Optimizers whose state is shared by the processes of an MPI job, on mpi4py. `import schuss` does not load it."""

from schuss.mpi._model import Machine as Machine
from schuss.mpi._model import Prediction as Prediction
from schuss.mpi._model import predict as predict
from schuss.mpi._sharded import Sharded as Sharded
