"""The JSON reader gives the same values however the bytes are cut, and C's errors."""

import json
import subprocess
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from examples import examples
from ovncp.wire.json_stream import JsonError, JsonStream, parse, pieces
from ovncp.wire.json_strict import Incomplete, read_strictly

LIMIT = 1 << 20

# Text that looks like structure, where a careless cut would fall.
characters = st.characters(exclude_characters="\0", exclude_categories=("Cs",))
tricky = st.text(st.sampled_from('{}[]",:\\ \n0a\u00e9\u20ac')) | st.text(characters)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | tricky
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(tricky, inner, max_size=4),
    max_leaves=12,
)
messages = st.dictionaries(tricky, values, max_size=4) | st.lists(values, max_size=4)
encoders = st.sampled_from(
    [
        orjson.dumps,
        lambda value: json.dumps(value).encode(),
        lambda v: json.dumps(v, indent=1).encode(),
    ]
)


def cut_up(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def feed_all(data: bytes, cuts: list[int]) -> list[object]:
    stream = JsonStream(LIMIT)
    return [value for piece in cut_up(data, cuts) for value in stream.feed(piece)]


def feed_until_an_error(data: bytes, cuts: list[int]) -> list[object]:
    stream = JsonStream(LIMIT)
    found: list[object] = []
    try:
        for piece in cut_up(data, cuts):
            found += stream.feed(piece)
    except JsonError as error:
        found += error.completed
    return found


@given(
    st.lists(messages, max_size=6),
    encoders,
    st.lists(st.integers(0, 10**6), max_size=12),
    st.sampled_from([b"", b" ", b"\n\t"]),
)
@examples(400)
def test_any_split_gives_the_same_values(sent, encode, cuts, between):
    data = between.join(map(encode, sent))
    assert feed_all(data, cuts) == sent


@given(st.lists(messages, min_size=1, max_size=4), st.lists(st.integers(0, 10**6), max_size=20))
@example([{"a": '"'}], [4225, 4225])  # nothing comes, between a backslash and what it escapes
@examples(200)
def test_any_split_of_big_messages(sent, cuts):
    """The same beyond the size up to which an unfinished message is simply read again."""
    wide = [{"pad": "x{" * 2100, "value": value, "more": [value] * 50} for value in sent]
    data = b"".join(map(orjson.dumps, wide))
    assert feed_all(data, cuts) == wide


def test_byte_by_byte():
    sent = [{"a": '}{"\\'}, [1, [2]], {"b": {}}]
    data = b" ".join(map(orjson.dumps, sent))
    stream = JsonStream(LIMIT)
    assert [v for i in range(len(data)) for v in stream.feed(data[i : i + 1])] == sent
    assert stream.pending_bytes == 0


def test_pipelined_messages_with_braces_in_strings():
    sent = [{"id": i, "match": "ip4.src == {$as}{x}" if i % 3 else "}{"} for i in range(100)]
    assert JsonStream(LIMIT).feed(b"".join(map(orjson.dumps, sent))) == sent


@given(
    st.lists(messages, min_size=1, max_size=20),
    st.sampled_from([b"", b" "]),
    st.integers(1, 500),
    st.integers(0, 100),
)
@examples(200)
def test_pieces_are_all_of_it_and_seldom_cut_a_message(sent, between, n_bytes, n_missing):
    data = between.join(map(orjson.dumps, sent))
    data = data[: max(1, len(data) - n_missing)]
    cut = list(pieces(data, n_bytes))
    assert b"".join(cut) == data
    assert all(len(piece) >= n_bytes for piece in cut[:-1])
    assert all(piece[:1] == b"{" and piece[-1:] == b"}" for piece in cut[1:-1])
    stream = JsonStream(LIMIT)
    values = [value for piece in cut for value in stream.feed(piece)]
    assert values == JsonStream(LIMIT).feed(data)


@given(messages, st.binary(max_size=30), st.lists(st.integers(0, 1000), max_size=5))
@example({}, b",[", [])
@examples(400)
def test_junk_never_loses_the_value_before_it(value, junk, cuts):
    found = feed_until_an_error(orjson.dumps(value) + junk, cuts)
    assert found[:1] == [value]


BIG = b'"%b"' % (b"x" * 5000)
TOKENS = (
    b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b" ", b"1", b"null", b"}{", b"][", b'"a":',
    b'{"a":1}', b"[{}]", BIG, b" " * 5000,
)  # fmt: skip


def read_from_the_start(data: bytes) -> list[object]:
    """The messages in `data` up to the first that is none."""
    values, at = [], 0
    try:
        while True:
            value, n_bytes = read_strictly(data[at:], final=False, trailer=False)
            values.append(value)
            at += n_bytes
    except (Incomplete, JsonError):
        return values


@given(st.lists(st.sampled_from(TOKENS), max_size=12), st.lists(st.integers(0, 10**6), max_size=5))
@example([BIG, b"}"], [5002])  # what comes first ends, but is no message
@example([b'{"a":1}', b",", b"{", b'"a":', BIG, b"}"], [])
@example([b'{"a":1}', b",", b"{", b'"a":', BIG, b"}"], [5012])
@examples(300)
def test_of_anything_the_messages_are_read_and_no_more(texts, cuts):
    data = b"".join(texts)
    assert feed_until_an_error(data, cuts) == read_from_the_start(data)


def test_what_stands_between_messages_is_an_error():
    stream = JsonStream(LIMIT)
    with pytest.raises(JsonError, match="syntax error at beginning of input") as caught:
        stream.feed(b'{"ok":1},{"a":' + BIG)
    assert caught.value.completed == [{"ok": 1}]


def test_last_of_duplicate_keys_wins():
    assert parse('{"a":1,"a":2}') == {"a": 2}
    assert parse(b'{"a":"\\u0061\xff","a":"\xff"}') == {"a": "\udcff"}


@pytest.mark.parametrize("reader", [parse, lambda text: JsonStream(LIMIT).feed(text)[0]])
def test_bytes_that_are_not_utf8_are_kept_for_the_atom_check(reader):
    assert reader(b'["\xff", "\\udc00", "\xc3\xa9"]') == ["\udcff", "\udced\udcb0\udc80", "é"]


@pytest.mark.parametrize("pad", ["", " " * 3000])
def test_integers_beyond_int64_are_reals(pad):
    text = f"[9223372036854775807,9223372036854775808,-9223372036854775808{pad}]"
    value = parse(text)
    assert value == [2**63 - 1, float(2**63), -(2**63)]
    assert list(map(type, value)) == [int, float, int]


@pytest.mark.parametrize("depth", [999, 1000])
def test_nesting_that_is_allowed(depth):
    text = b"[" * depth + b"]" * depth
    for value in [parse(text), *JsonStream(LIMIT).feed(text + text)]:
        found = 0
        while isinstance(value, list):  # "==" would recurse too deep
            found, value = found + 1, value[0] if value else None
        assert found == depth


@pytest.mark.parametrize("opening", [b"[" * 1001, b'{"a":' * 1001])
@pytest.mark.parametrize("size", [1, 100, 10**6])
def test_nesting_over_1000_is_refused(opening, size):
    stream = JsonStream(LIMIT)
    with pytest.raises(JsonError, match="input exceeds maximum nesting depth 1000"):
        for at in range(0, len(opening), size):
            stream.feed(opening[at : at + size])


def test_brackets_cannot_be_smuggled_past_the_depth_check():
    filler = b" " * 3000
    for text in (b"{},{}" + filler, b"{}" + filler + b"]],[[{}"):
        stream = JsonStream(LIMIT)
        with pytest.raises(JsonError) as caught:
            stream.feed(text)
        assert caught.value.completed == [{}]


@pytest.mark.parametrize("text", [b'{"id":0,"params":[}', b"x ", b'{"a":nul,', b'["\n', b'{"a" 1,'])
@pytest.mark.parametrize("before", [b"", b'{"ok":1}'])
def test_an_error_is_found_before_the_message_ends(text, before):
    with pytest.raises(JsonError) as caught:
        JsonStream(LIMIT).feed(before + text)
    assert caught.value.completed == ([{"ok": 1}] if before else [])


def test_an_error_deep_in_a_big_message_is_found():
    stream = JsonStream(1 << 26)
    stream.feed(b'{"a":[' + b'"x",' * 5000)
    with pytest.raises(JsonError, match="expecting value"):
        for _ in range(100):
            stream.feed(b"]]," * 2000)


@pytest.mark.parametrize("piece", [10, 1000, 10**6])
def test_size_limit(piece):
    stream = JsonStream(10_000)
    data = b'["' + b"x" * 20_000 + b'"]'
    with pytest.raises(JsonError, match="larger than the limit of 10000 bytes"):
        for at in range(0, len(data), piece):
            stream.feed(data[at : at + piece])


@pytest.mark.parametrize("between", [b"", b"\n"])
def test_many_messages_in_one_chunk_take_linear_time(between):
    """A quadratic reader would take minutes, and a recursive one would not end."""
    data = b'{"a":"}{"}' + between
    assert len(JsonStream(LIMIT).feed(data * 100_000)) == 100_000


def test_a_chunk_of_small_messages_may_exceed_the_limit():
    assert JsonStream(100).feed(b'{"a":1}' * 1000) == [{"a": 1}] * 1000


C_CASES = [
    '{"a":01}', '{"a":"\\u0000"}', '{"a":"\\ud800"}', '{"a":-}', '{"a":1.}', '{"a":1e}',
    '{"a":1e+}', "[1]x", "{}]", "x", '"s"', "12", '{"a":nul}', '{"a":nulL }', '{"a":1e999}',
    '{"a" 1}', '{"a":"\n"}', " ", "", '{"a":{}]', '{"a":1-2}', '{"a":"\\q"}', '{"a":"\\u12"}',
    '{"a":"\\u12zz"}', '{"a":tRue}', '{"a":Rue}', '{"a":1e99999999999}', '{"a":1e214748364}',
    "[", "{", '{"a', '{"a"', '{"a":', '{"a":1', '{"a":true', '{"a":1,', '{"a":1,}', "[1,]",
    "[,]", "{,}", '["\\ud800\\u0041"]', '["\\ud800\\u00"]', '["\\ud800\\u0000"]',
    '["\\ud800\\uzzzz"]', '["\\ud800x"]', '\n\n {"a"\n: @}', '{"a":\x01}', '{"a":\x7f}',
    '["a\\', '["a\\"', "[" * 1001 + "]" * 1001, "[" * 1000, '{"a":' * 1001, "[1 2]",
    "[true false]", "{1:2}", '["a":1]', "[-01]", "[-]", "[00]", "[1.5.5]", "[1e5e5]",
    "[1e5.5]", "[+1]", "[.5]", "[1 ]  x", '["x\ty"]', "[1\x0b]",
]  # fmt: skip


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("c") / "db"
    schema = path.with_name("schema")
    schema.write_text('{"name":"d","version":"1.0.0","tables":{}}')
    subprocess.run(["ovsdb-tool", "create", path, schema], check=True)
    return path


@pytest.mark.parametrize("text", C_CASES, ids=lambda text: repr(text)[:30])
def test_errors_are_those_of_c(text, database):
    run = subprocess.run(["ovsdb-tool", "query", database, text], capture_output=True, text=True)
    with pytest.raises(JsonError) as caught:
        parse(text)
    assert run.stderr == f'ovsdb-tool: "{text}": {caught.value}\n'
