"""The figures of `memory/show` (ovs-appctl(8)): what the server keeps, counted without a stall.

A big database is counted in slices, with a breath for others between them.
"""

import asyncio
import logging
import resource
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TypeVar

from ovncp.log.engine import EngineLog
from ovncp.ovsdb.database import Database
from ovncp.ovsdb.row import Values
from ovncp.ovsdb.table import Table
from ovncp.server.server import Server

_LOG = logging.getLogger("ovncp.memory")

CHECK_MSEC = 10_000
_GROWTH_WORTH_TELLING = 1.5

T = TypeVar("T")

_PER_SLICE = 1000
_ALWAYS_SHOWN = {"monitors", "n-weak-refs"}


async def usage(server: Server) -> dict[str, int]:
    """Each figure by name; one that is zero is left out, as the C server does."""
    figures: Counter[str] = Counter()
    for runner in list(server.runners.values()):
        figures.update(await _database_usage(runner.database))
        figures["triggers"] += runner.n_triggers
        if isinstance(runner.log, EngineLog):
            figures["raft-log"] += runner.log.next_index - 1 - runner.log.snapshot_index
    clients = [session for session in server.sessions if not session.remote.speaks_for_others]
    figures["sessions"] = len(clients)
    figures["backlog"] = sum(session.backlog_bytes for session in server.sessions)
    return {
        name: count for name, count in sorted(figures.items()) if count or name in _ALWAYS_SHOWN
    }


_OF_CLIENTS = {"sessions", "backlog", "monitors", "json-caches"}


def with_workers(figures: dict[str, int], texts: Iterable[str]) -> dict[str, int]:
    """`figures` of the main process, with those about clients from what its workers `show`.

    The main process's own clients are the workers, for one.
    """
    added = Counter({name: figures[name] for name in figures if name not in _OF_CLIENTS})
    for text in texts:
        parts = (part.rsplit(":", 1) for part in text.split())
        added.update({name: int(count) for name, count in parts if name in _OF_CLIENTS})
    return dict(sorted(added.items()))


def show(figures: dict[str, int]) -> str:
    """`figures` in one line."""
    return " ".join(f"{name}:{count}" for name, count in figures.items())


async def _database_usage(database: Database) -> dict[str, int]:
    tables = list(database.tables.values())
    return {
        "atoms": sum([await _table_atoms(table) for table in tables]),
        "cells": database.n_cells(),
        "monitors": database.monitors.n_groups,
        "json-caches": database.monitors.n_caches,
        "txn-history": len(database.history),
        "txn-history-atoms": await _history_atoms(database),
        "n-weak-refs": sum([await _weak_references(table) for table in tables]),
    }


async def _table_atoms(table: Table) -> int:
    total = 0
    for rows in _slices(list(table.rows.values())):
        total += _atoms(table, (row.values for row in rows))
        await asyncio.sleep(0)
    return total


def _atoms(table: Table, rows: Iterable[Values]) -> int:
    types = [(column.index, column.type) for column in table.columns.values()]
    n_scalars = sum(kind.is_scalar for _, kind in types)
    others = [(index, kind.n_atoms) for index, kind in types if not kind.is_scalar]
    total = 0
    for values in rows:
        total += n_scalars
        for index, n_atoms in others:
            total += n_atoms(values[index])
    return total


async def _history_atoms(database: Database) -> int:
    total = 0
    changes = list(chain.from_iterable(step.changes for step in database.history.steps()))
    for part in _slices(changes):
        for change in part:
            kept = (values for values in (change.old, change.new) if values is not None)
            total += _atoms(change.table, kept)
        await asyncio.sleep(0)
    return total


async def _weak_references(table: Table) -> int:
    total = 0
    for targets in _slices(list(table.referrers.values())):
        total += sum(count for referrers in targets for _, count in referrers.values())
        await asyncio.sleep(0)
    return total


def _slices(items: Sequence[T]) -> Iterable[Sequence[T]]:
    for start in range(0, len(items), _PER_SLICE):
        yield items[start : start + _PER_SLICE]


async def watch(server: Server) -> None:
    """Log the figures after a while, and again whenever the process has grown by half."""
    started = reported = server.clock.now_msec()
    reported_kb = 0
    while True:
        await server.clock.sleep(CHECK_MSEC)
        now = server.clock.now_msec()
        peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if reported_kb and peak_kb < reported_kb * _GROWTH_WORTH_TELLING:
            continue
        if not reported_kb:
            seconds = (now - started) / 1000
            _LOG.info("%d kB peak resident set size after %.1f seconds", peak_kb, seconds)
        else:
            _log_growth(reported_kb, peak_kb, (now - reported) / 1000)
        _LOG.info("%s", show(await usage(server)))
        reported, reported_kb = now, peak_kb


def _log_growth(before_kb: int, now_kb: int, seconds: float) -> None:
    _LOG.info(
        "peak resident set size grew %.0f%% in last %.1f seconds, from %d kB to %d kB",
        (now_kb / before_kb - 1) * 100,
        seconds,
        before_kb,
        now_kb,
    )
