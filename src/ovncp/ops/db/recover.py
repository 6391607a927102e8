"""`ovncp db recover`: a new log from what is left of a lost one, after its engine lost its quorum.

    1. Each source is read, and what it has is kept as a backup in a folder (`remains.py`).
    2. What there is, is shown, and what is to be done: nothing has been changed so far.
    3. The new log is made of the newest, or of the one that the operator names.
    4. It is read back, and compared row by row.

The folder has a file with the steps that are done. So whoever is interrupted says the same again,
and goes on: sources that were read are not read again, as they may be gone by then.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from ovncp.log import durable
from ovncp.log.base import LogError
from ovncp.log.durable import io_errors
from ovncp.log.location import Location
from ovncp.ops.db.backup_file import BackupFile
from ovncp.ops.db.caller import Caller
from ovncp.ops.db.move import Moved, read_back
from ovncp.ops.db.place import Kind, Place
from ovncp.ops.db.remains import Lost, Remains, examine, ranked, shown
from ovncp.ops.db.restore import put, read_backup
from ovncp.ops.refusal import Refusal

_STEPS = "recovery.json"
_VERB = "recovered"


@dataclass
class Steps:
    """How far a recovery is: what was found of each source, what was chosen, whether it is done."""

    target: str
    found: list[Remains] = field(default_factory=list)
    chosen: str = ""
    done: bool = False

    @classmethod
    def load(cls, work: str, target: str) -> "Steps":
        """Those in the folder `work`. Raises Refusal if they are of another recovery."""
        path = os.path.join(work, _STEPS)
        with suppress(FileNotFoundError), open(path, "rb") as file:
            json = orjson.loads(file.read())
            steps = cls(**{**json, "found": [Remains(**each) for each in json["found"]]})
            if steps.target != target:
                raise Refusal(f"{path} is of the recovery of {steps.target}; name another --work")
            return steps
        return cls(target)

    def save(self, work: str) -> None:
        """Write them, so that a crash leaves these or those before. Raises LogError."""
        path = os.path.join(work, _STEPS)
        with io_errors(f"{path}: write failed"):
            fd = durable.create_temporary(path)
            try:
                durable.write_all(fd, orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2), 0)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(durable.temporary(path), path)
            durable.sync_directory(path)


@dataclass(frozen=True)
class Recovered:
    """What was done: `moved` is what was put into the new log."""

    chosen: Remains
    found: list[Remains]
    moved: Moved
    work: str

    @property
    def status(self) -> int:
        """See `Report`."""
        return self.moved.status

    def lines(self) -> Iterable[str]:
        """See `Report`."""
        yield from self.moved.lines()
        yield f"{self.work}: all that was found, as backups; delete it when all is well"

    def to_json(self) -> dict[str, Any]:
        """See `Report`."""
        return {
            **self.moved.to_json(),
            "chosen": asdict(self.chosen),
            "found": [asdict(each) for each in self.found],
            "work": self.work,
        }


async def recover(
    url: str,
    sources: Sequence[str],
    lost: str | None,
    work: str,
    number: int | None,
    confirm: Callable[[Iterable[str]], bool],
    caller: Caller,
) -> Recovered:
    """Make the log `url` of the newest of `sources`, or of that `number` of the list.

    `lost` is the URL that the lost log had, if it is another than `url`; what is found is kept in
    the folder `work`. `confirm` is told what is to be done, and says whether to.
    Raises Refusal, LogError, OvsdbError, OSError.
    """
    target = Place.parse_log(url)
    os.makedirs(work, mode=0o700, exist_ok=True)
    steps = Steps.load(work, target.name)
    await _examine_all(steps, sources, Lost(_location(lost or url), os.path.abspath(work)), caller)
    found = await ranked(steps.found, caller)
    chosen = _choose(found, steps, number)
    if not confirm(_plan(found, steps, chosen, target)):
        raise Refusal("nothing was done")
    steps.chosen = chosen.source
    steps.save(work)
    moved = await _carry_out(chosen, target, caller)
    steps.done = moved.comparison.is_equal
    steps.save(work)
    return Recovered(chosen, steps.found, moved, work)


def _location(text: str) -> Location | None:
    place = Place.parse_log(text)
    return Location.parse(text) if place.kind is Kind.ENGINE else None


async def _examine_all(steps: Steps, sources: Sequence[str], lost: Lost, caller: Caller) -> None:
    """Have in `steps` what each of `sources` has; none that was read before is read again."""
    for source in sources:
        name = shown(source)
        known = [each for each in steps.found if each.source == name]
        if not any(map(_is_kept, known)):
            remains = await examine(source, lost, caller)
            steps.found = [each for each in steps.found if each not in known] + [remains]
            steps.save(lost.work)


def _is_kept(remains: Remains) -> bool:
    """Whether there is a good backup of `remains` already."""
    if remains.problem:
        return False
    try:
        BackupFile(remains.backup).verify()
    except Refusal:
        return False
    return True


def _choose(found: list[Remains], steps: Steps, number: int | None) -> Remains:
    """That `number` of `found`; or the one that was chosen before; or the newest."""
    if number is not None:
        if not 1 <= number <= len(found):
            raise Refusal(f"--use={number}: there is no such number in the list")
        return found[number - 1]
    if not found:
        problems = "; ".join(each.line() for each in steps.found)
        raise Refusal(f"nothing was found to recover from: {problems}")
    return next((each for each in found if each.source == steps.chosen), found[0])


def _plan(found: list[Remains], steps: Steps, chosen: Remains, target: Place) -> Iterator[str]:
    """What there is, and what is to be done."""
    yield "Found, the newest first:"
    for number, each in enumerate(found, 1):
        yield f"  {number}  {each.line()}"
        yield from (f"       {note}" for note in each.notes)
    yield from (f"  -  {each.line()}" for each in steps.found if each.problem)
    yield f"To be done: make {target.name} of number {found.index(chosen) + 1}, then compare."


async def _carry_out(chosen: Remains, target: Place, caller: Caller) -> Moved:
    """Make the log `target`, unless an interrupted run has made it."""
    source = Place(Kind.FILE, chosen.source, chosen.backup)
    state = await read_backup(chosen.backup, caller)
    try:
        return await put(source, state, target, caller, _VERB)
    except LogError as error:
        try:
            comparison = await read_back(state, target, caller)
        except LogError:
            raise error from error.__cause__
        if not comparison.is_equal:
            raise Refusal(
                f"{target.name} is there already, and is not what was chosen: recover into another"
            ) from error
        return Moved(_VERB, source, target, state, 0, comparison)
