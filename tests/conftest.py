"""For all tests: whatever started them, the programs that they start take signals as usual.

A run that was started by `nohup`, or in the background, ignores some, and so would every program.
"""

import signal

for _number, _usual in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)
