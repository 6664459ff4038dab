r"""Weight initializers. They know no optimizer.

Each takes a shape and returns a new array, or fills the array given as ``out``. Those that use a layer's fan-in and
fan-out have two layouts:

=============  ======================  ===================  ========================  ==============================
``layout``     dense                   convolution          fan in                    fan out
=============  ======================  ===================  ========================  ==============================
``"in_out"``   ``(in, out)``           ``(...k, in, out)``  :math:`in \cdot \prod k`  :math:`out \cdot \prod k`
``"out_in"``   ``(out, in)``           ``(out, in, k...)``  :math:`in \cdot \prod k`  :math:`out \cdot \prod k`
=============  ======================  ===================  ========================  ==============================

The first is NumPy's ``x @ w`` and Keras's, the second PyTorch's.

Values are drawn in float64 in C order and rounded once, so a seed gives the same weights for either dtype and any
memory order of ``out``.

>>> import numpy as np
>>> from schuss import init
>>> rng = np.random.default_rng(0)
>>> w = init.kaiming_normal((784, 128), rng=rng)
>>> w.shape, w.dtype.name
((784, 128), 'float32')
"""

from typing import TYPE_CHECKING

from schuss.init._gain import gain as gain
from schuss.init._orthogonal import orthogonal as orthogonal
from schuss.init._truncated import truncated_normal as truncated_normal
from schuss.init._variance import kaiming_normal as kaiming_normal
from schuss.init._variance import kaiming_uniform as kaiming_uniform
from schuss.init._variance import lecun_normal as lecun_normal
from schuss.init._variance import lecun_uniform as lecun_uniform
from schuss.init._variance import xavier_normal as xavier_normal
from schuss.init._variance import xavier_uniform as xavier_uniform

__all__ = [
    "gain",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "orthogonal",
    "truncated_normal",
    "xavier_normal",
    "xavier_uniform",
]

if not TYPE_CHECKING:

    def __getattr__(name):
        raise AttributeError(f"module 'schuss.init' has no initializer {name!r}; it has {', '.join(__all__)}")

    def __dir__():
        return __all__
