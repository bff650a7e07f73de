"""The block kinds that come with the package, one a file, each registered the way a user registers one.

A file owns the declaration of its kind: options (name, type, default, range, one line of documentation, the stack
setting that goes with each), what clashes, what it costs and what it keeps. The language, the keyword API, the costs,
the errors and the torch modules all read it from there. To add a kind, add its file and its line below.
"""

from ..register import register
from .attention import SELF_ATTENTION
from .conv import SHORT_CONVOLUTION
from .cross_attention import CROSS_ATTENTION
from .experts import EXPERTS
from .feedforward import FEEDFORWARD
from .gdn import GATED_DELTA_NET
from .gla import GATED_LINEAR_ATTENTION
from .hgrn import HGRN
from .kda import KIMI_DELTA_ATTENTION
from .mamba import MAMBA
from .mamba2 import MAMBA2
from .rglru import RECURRENT

for _kind in (  # in the order in which they are listed, which is that of their colours
    SELF_ATTENTION,
    CROSS_ATTENTION,
    FEEDFORWARD,
    EXPERTS,
    MAMBA2,
    GATED_DELTA_NET,
    KIMI_DELTA_ATTENTION,
    GATED_LINEAR_ATTENTION,
    MAMBA,
    SHORT_CONVOLUTION,
    RECURRENT,
    HGRN,
):
    register(_kind)
