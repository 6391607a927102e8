"""For all tests: they are as on a machine of their own, whatever started them and runs beside them.

The programs that they start take signals as usual: a run that was started by `nohup`, or in the
background, ignores some, and so would every program. The examples of a property are the same each
time, unless tests/examples.py is asked for others, and none is too slow.
"""

import signal

from hypothesis import HealthCheck, Phase, settings
from hypothesis.internal.conjecture import providers

from examples import FACTOR

settings.register_profile(
    "unhurried",
    derandomize=not FACTOR,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)
settings.load_profile("unhurried")

# Now and then hypothesis draws a constant of whatever modules of ours the process has imported by
# then, which are others in each process of a run, in a compiled copy and on another path.
if not FACTOR:
    providers._get_local_constants = providers.Constants

for _number, _usual in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)
