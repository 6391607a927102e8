"""For all tests: they are as on a machine of their own, whatever started them and runs beside them.

The programs that they start take signals as usual: a run that was started by `nohup`, or in the
background, ignores some, and so would every program. The examples of a property are the same each
time, unless tests/examples.py is asked for others, and none is too slow.

Their files are in memory, where that is plenty: a disk that others use makes a write wait for
seconds now and then, which is not what any test is about.
"""

import atexit
import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path

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

_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 12 << 30


def _has_room() -> bool:
    sizes = dict(line.split()[:2] for line in Path("/proc/meminfo").read_text().splitlines())
    return (
        _MEMORY.is_dir()
        and min(shutil.disk_usage(_MEMORY).free, int(sizes["MemAvailable:"]) << 10) >= _ROOM_BYTES
    )


# The processes of a run have the TMPDIR of the one that started them.
if "TMPDIR" not in os.environ and _has_room():
    _directory = tempfile.mkdtemp(prefix="t-", dir=_MEMORY)
    Path(_directory).chmod(0o755)
    atexit.register(shutil.rmtree, _directory, ignore_errors=True)
    os.environ["TMPDIR"] = tempfile.tempdir = _directory

for _number, _usual in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)


def pytest_collection_finish() -> None:
    """What is there before the first test is there until the last; it is not looked at again."""
    gc.freeze()
