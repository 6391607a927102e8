"""For all tests: they are as on a machine of their own, whatever started them and runs beside them.

The programs that they start take signals as usual: a run that was started by `nohup`, or in the
background, ignores some, and so would every program. The examples of a property are the same each
time, and none is too slow.
"""

import signal

from hypothesis import HealthCheck, settings

settings.register_profile(
    "unhurried", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")

for _number, _usual in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)
