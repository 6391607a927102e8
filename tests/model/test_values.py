"""Values: datums of every type, their JSON and their text, and JSON cut anywhere on its way.

Compared with the naive model, and with the Python package `ovs`, which reads and prints the same.
"""

import string
from itertools import pairwise
from typing import Any

import orjson
import ovs.db.data
import ovs.db.types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from model import naive
from model.bookkeeping import elements_of
from model.naive import PYTHON_TYPES
from model.strategies import types
from ovncp.ovsdb.atom import Symbols
from ovncp.ovsdb.column_type import UNLIMITED, ColumnType
from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.schema import type_from_json, type_to_json
from ovncp.wire.json_stream import JsonStream

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
# With no more digits than C shows, and none that C refuses to read.
reals = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False).map(
    lambda real: float(f"{real:.15g}")
)
finite_reals = reals.filter(lambda real: real == 0 or 1e-307 < abs(real) < 1e308)
# The same however they are read: C takes 1.0 for an integer, orjson does not.
broken_reals = finite_reals.filter(lambda real: not real.is_integer() or abs(real) > 2**64)
integers = st.integers(-(2**63), 2**63 - 1)
ATOMS: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(0, 3) | integers,
    "real": st.sampled_from([0.0, 0.5, -2.0]) | finite_reals,
    "boolean": st.booleans(),
    "string": st.text(string.ascii_letters + '_-. "\\', max_size=3) | text,
    "uuid": st.uuids().map(str),
}


def free(kind: ColumnType) -> ColumnType:
    """`kind` without what it asks of its atoms."""
    json: dict[str, Any] = {"key": kind.key.kind, "min": kind.n_min}
    json["max"] = "unlimited" if kind.n_max == UNLIMITED else kind.n_max
    if kind.value is not None:
        json["value"] = kind.value.kind
    return type_from_json(json)


column_types = types().map(type_from_json)
free_types = column_types.map(free)


@st.composite
def datums(draw: Any, kind: ColumnType, n_max: int = 90) -> Any:
    """A datum of `kind`, often of few elements and sometimes of many."""
    if kind.is_scalar:
        return draw(ATOMS[kind.key.kind])
    size = draw(st.sampled_from([3, 3, n_max]))
    keys = draw(
        st.lists(
            ATOMS[kind.key.kind], min_size=kind.n_min, max_size=min(size, kind.n_max), unique=True
        )
    )
    if kind.value is None:
        return tuple(sorted(keys))
    return {key: draw(ATOMS[kind.value.kind]) for key in sorted(keys)}


def exactly(kind: ColumnType, datum: Any) -> list[Any]:
    """The elements in their order, with their Python types."""
    atoms = [*kind.keys(datum), *kind.values(datum)]
    return [(type(atom), atom) for atom in atoms]


def read(kind: ColumnType, text: bytes) -> Any:
    (value,) = JsonStream(1 << 20).feed(b"[%b]" % text)
    return kind.from_json(value[0], None)


@examples(100)
@given(st.data(), free_types)
def test_json_and_back(data, kind):
    datum = data.draw(datums(kind))
    again = read(kind, orjson.dumps(kind.json(datum)))
    assert exactly(kind, again) == exactly(kind, datum)


@examples(150)
@given(st.data(), free_types)
def test_difference_applied(data, kind):
    old, new = data.draw(datums(kind)), data.draw(datums(kind))
    diff = read(kind.with_bounds(0, UNLIMITED), orjson.dumps(kind.json(kind.diff(old, new))))
    assert exactly(kind, kind.apply_diff(old, diff)) == exactly(kind, new)
    model = naive.type_of(type_to_json(kind))
    model_diff = naive.difference(model, elements_of(kind, old), elements_of(kind, new))
    assert elements_of(kind, diff) == model_diff
    if kind.n_max > 1:
        removed, added = kind.removed_and_added(old, new)
        before, after = elements_of(kind, old), elements_of(kind, new)
        assert (set(removed), set(added)) == (before - after, after - before)


@examples(150)
@given(st.data(), free_types.filter(lambda kind: not kind.is_scalar))
def test_sets_and_maps_as_sets(data, kind):
    """The operations of conditions and mutations, against those of Python's sets."""
    kind = kind.with_bounds(0, UNLIMITED)
    datum, other = data.draw(datums(kind)), data.draw(datums(kind))
    part = data.draw(st.sampled_from([other, datum, first(kind, datum), kind.default]))
    mine, theirs = elements_of(kind, datum), elements_of(kind, part)
    assert kind.includes(datum, part) == (theirs <= mine)
    assert kind.excludes(datum, part) == (not theirs & mine)
    assert elements_of(kind, kind.without(datum, part)) == mine - theirs
    keys = set(kind.keys(datum))
    added = {e for e in theirs if (e[0] if kind.is_map else e) not in keys}
    united = kind.union(datum, part)
    assert elements_of(kind, united) == mine | added
    assert list(kind.keys(united)) == sorted(kind.keys(united))


def first(kind: ColumnType, datum: Any) -> Any:
    """The first element alone."""
    return dict(list(datum.items())[:1]) if kind.is_map else datum[:1]


def has_no_strings(kind: ColumnType) -> bool:
    return "string" not in (kind.key.kind, kind.value and kind.value.kind)


@examples(100)
@given(st.data(), free_types.filter(has_no_strings))
def test_text_is_that_of_the_package_ovs(data, kind):
    datum = data.draw(datums(kind, 5))
    their_type = ovs.db.types.Type.from_json(type_to_json(kind))
    json = orjson.loads(orjson.dumps(kind.json(datum)))
    theirs = ovs.db.data.Datum.from_json(their_type, json).to_string()
    assert kind.to_string(datum) == theirs


# As the C server writes them in the error for a duplicate in an index; the package quotes more.
PLAIN = ["A0", "a.b", "a-b", "_x", "_1", "truer"]
QUOTED = ["", "0a", "-a", ".a", "a:", "a b", "true", "false", "é", "\x7f", naive.ZEROS]


@pytest.mark.parametrize("text", PLAIN + QUOTED)
def test_text_of_strings(text):
    kind = type_from_json("string")
    assert kind.to_string(text) == (text if text in PLAIN else f'"{text}"')
    assert kind.to_string('"\\\n') == r'"\"\\\n"'


@examples(100)
@given(column_types)
def test_types_and_back(kind):
    json = orjson.dumps(type_to_json(kind))
    assert orjson.dumps(type_to_json(type_from_json(orjson.loads(json)))) == json


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | text,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(st.sampled_from(["set", "map", "uuid", "named-uuid"]), inner).map(list)
    ),
    max_leaves=8,
)


@examples(200)
@given(column_types, junk)
def test_any_json_is_a_datum_or_an_error(kind, json):
    try:
        datum = kind.from_json(json, Symbols(lambda: naive.ZEROS))
    except OvsdbError as error:
        assert error.tag in ("syntax error", "constraint violation", "ovsdb error")
        return
    kind.check(datum)
    assert kind.conforms(datum)
    assert all(type(key) is PYTHON_TYPES[kind.key.kind] for key in kind.keys(datum))


values = st.recursive(
    st.none() | st.booleans() | integers | broken_reals | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
messages = st.lists(st.dictionaries(text, values, max_size=4), max_size=5)
cuts = st.lists(st.integers(0, 400), max_size=12)


@examples(60)
@given(messages, cuts)
def test_json_cut_anywhere(sent, cuts):
    data = b"".join(map(orjson.dumps, sent))
    stream = JsonStream(1 << 20)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    received = [value for start, end in pairwise(edges) for value in stream.feed(data[start:end])]
    assert repr(received) == repr(sent)
    assert stream.pending_bytes == 0
