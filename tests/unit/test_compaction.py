"""When a log is compacted by itself."""

import pytest

from ovncp.log.file import FileLog
from ovncp.log.memory import MemoryLog
from ovncp.log.standalone import create
from ovncp.server.compaction import Schedule

MINUTE = 60_000
DAY = 24 * 60 * MINUTE
SCHEMA = b'{"name":"D","version":"1.0.0","tables":{}}'
SMALL = b'{"a":1}'
LARGE = b'{"a":"%s"}' % (b"x" * 200_000)


@pytest.fixture
async def log(tmp_path):
    create(str(tmp_path / "d.db"), SCHEMA, [SMALL])
    log = await FileLog.open(str(tmp_path / "d.db"), fsync=False)
    yield log
    await log.close()


async def append(log, data, count):
    await log.append(log.next_index, [data] * count)


async def test_a_hundred_entries_in_a_file_that_doubled_and_is_large(log):
    schedule = Schedule(0)
    await append(log, LARGE, 99)
    assert not schedule.is_due(log, 10 * MINUTE - 1)
    assert schedule.is_due(log, 20 * MINUTE)


async def test_few_entries_wait(log):
    await append(log, LARGE, 98)
    assert not Schedule(0).is_due(log, 20 * MINUTE)


async def test_a_small_file_waits(log):
    await append(log, SMALL, 1000)
    assert not Schedule(0).is_due(log, 20 * MINUTE)


async def test_after_a_day_anything_is_enough(log):
    assert not Schedule(0).is_due(log, DAY - 1)
    assert Schedule(0).is_due(log, DAY)


async def test_what_was_compacted_starts_over(log):
    schedule = Schedule(0)
    await append(log, LARGE, 99)
    await log.save_snapshot(log.next_index - 1, SMALL)
    schedule.restart(20 * MINUTE)
    assert not schedule.is_due(log, 40 * MINUTE)
    assert not schedule.is_due(log, 2 * DAY)


async def test_a_failure_is_tried_again_soon(log):
    schedule = Schedule(0)
    await append(log, LARGE, 99)
    schedule.restart(0, failed=True)
    assert schedule.is_due(log, 2 * MINUTE)


def test_other_engines_do_it_themselves():
    assert not Schedule(0).is_due(MemoryLog(SCHEMA), 2 * DAY)
