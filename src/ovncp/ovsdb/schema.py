"""Database schemas: parsing, checking and printing (RFC 7047 section 3.2)."""

import re
from typing import Any, Final

from ovncp.ovsdb.atom import ATOMIC_TYPES, BaseType
from ovncp.ovsdb.column_type import UNLIMITED, ColumnType, ScalarType, make_type
from ovncp.ovsdb.errors import OvsdbError, syntax_error
from ovncp.ovsdb.parser import (
    Member,
    Shape,
    check_members,
    is_array,
    is_boolean,
    is_id,
    is_integer,
    is_number,
    is_object,
    is_string,
    is_string_or_object,
    parse,
)

# The places of the columns that every table has.
UUID: Final = 0
VERSION: Final = 1

_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+\Z").match
_MAX_UINT = 2**32 - 1


def _is_count_or_string(value: Any) -> bool:
    return is_integer(value) or is_string(value)


def _is_enum(value: Any) -> bool:
    return value is not None and not is_object(value)


_SCHEMA = (
    Member("name", is_id),
    Member("version", is_string, True),
    Member("cksum", is_string, True),
    Member("tables", is_object),
)
_TABLE = (
    Member("columns", is_object),
    Member("mutable", is_boolean, True),
    Member("maxRows", is_integer, True),
    Member("isRoot", is_boolean, True),
    Member("indexes", is_array, True),
)
_COLUMN = (
    Member("mutable", is_boolean, True),
    Member("ephemeral", is_boolean, True),
    Member("type", is_string_or_object),
)
_TYPE = (
    Member("key", is_string_or_object),
    Member("value", is_string_or_object, True),
    Member("min", is_integer, True),
    Member("max", _is_count_or_string, True),
)
_BASE_TYPE_COMMON = (Member("type", is_string), Member("enum", _is_enum, True))
_BASE_TYPE_MEMBERS = {
    "integer": (Member("minInteger", is_integer, True), Member("maxInteger", is_integer, True)),
    "real": (Member("minReal", is_number, True), Member("maxReal", is_number, True)),
    "boolean": (),
    "string": (Member("minLength", is_integer, True), Member("maxLength", is_integer, True)),
    "uuid": (Member("refTable", is_id, True), Member("refType", is_id, True)),
}
_BOUNDS = {
    "integer": ("minInteger", "maxInteger"),
    "real": ("minReal", "maxReal"),
    "string": ("minLength", "maxLength"),
}


class Column:
    """One column of a table. `index` is its place in a row's values.

    `diff_type` is the type of a difference of it, which may have any number of elements.
    """

    __slots__ = ("diff_type", "index", "mutable", "name", "persistent", "type")

    def __init__(self, name: str, type: ColumnType, *, mutable: bool, persistent: bool) -> None:
        self.name = name
        self.type = type
        self.diff_type = type.with_bounds(0, UNLIMITED)
        self.mutable = mutable
        self.persistent = persistent
        self.index = -1

    def to_json(self) -> dict[str, Any]:
        """The `<column-schema>`."""
        json: dict[str, Any] = {}
        if not self.mutable:
            json["mutable"] = False
        if not self.persistent:
            json["ephemeral"] = True
        json["type"] = type_to_json(self.type)
        return json


class VersionType(ScalarType):
    """The type of `_version`: a uuid that is kept as a number and printed when it is asked for."""

    __slots__ = ()

    def _default(self) -> Any:
        return 0

    def _make_to_json(self) -> Any:
        return lambda datum: ("uuid", format_uuid(datum))

    def from_json(self, json: Any, symbols: Any) -> Any:
        return int(str(super().from_json(json, symbols)).replace("-", ""), 16)


def format_uuid(number: int) -> str:
    """The uuid whose 128 bits are `number`."""
    h = f"{number:032x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


class TableSchema:
    """One table. `columns` has `_uuid` and `_version` first, then the table's own."""

    __slots__ = ("columns", "indexes", "is_root", "max_rows", "mutable", "name")

    def __init__(self, name: str, *, mutable: bool, max_rows: int, is_root: bool) -> None:
        self.name = name
        self.mutable = mutable
        self.max_rows = max_rows
        self.is_root = is_root
        self.indexes: list[tuple[Column, ...]] = []
        self.columns: dict[str, Column] = {}
        uuid = BaseType("uuid")
        self.add(Column("_uuid", ScalarType(uuid, None, 1, 1), mutable=False, persistent=True))
        self.add(Column("_version", VersionType(uuid, None, 1, 1), mutable=False, persistent=False))

    def add(self, column: Column) -> None:
        """Add `column` in the next place."""
        column.index = len(self.columns)
        self.columns[column.name] = column

    def column_set(self, json: Any) -> tuple[Column, ...]:
        """The columns that an array of distinct names stands for; all when `json` is None."""
        if json is None:
            return tuple(self.columns.values())
        columns: list[Column] = []
        for name in json if type(json) is list else [None]:
            column = self.columns.get(name) if type(name) is str else None
            if column is None and type(name) is str:
                raise syntax_error(json, f"{name} is not a valid column name")
            if column is None or column in columns:
                raise syntax_error(json, "array of distinct column names expected")
            columns.append(column)
        return tuple(columns)

    def column_triple(self, json: Any, what: str) -> tuple[Column, str, Any]:
        """The parts of a `<condition>` or `<mutation>` clause; `what` is its name in errors."""
        if (
            type(json) is not list
            or len(json) != 3
            or type(json[0]) is not str
            or type(json[1]) is not str
        ):
            raise syntax_error(json, f"Parse error in {what}.")
        column = self.columns.get(json[0])
        if column is None:
            message = f"No column {json[0]} in table {self.name}."
            raise OvsdbError("unknown column", message, json)
        return column, json[1], json[2]

    def to_json(self, default_is_root: bool) -> dict[str, Any]:
        """The `<table-schema>`; "isRoot" is left out where it is `default_is_root`."""
        json: dict[str, Any] = {}
        if not self.mutable:
            json["mutable"] = False
        if self.is_root != default_is_root:
            json["isRoot"] = self.is_root
        own = (column for name, column in self.columns.items() if name[0] != "_")
        json["columns"] = {column.name: column.to_json() for column in own}
        if self.max_rows != _MAX_UINT:
            json["maxRows"] = self.max_rows
        if self.indexes:
            json["indexes"] = [[column.name for column in index] for index in self.indexes]
        return json


class DatabaseSchema:
    """A whole schema."""

    __slots__ = ("cksum", "name", "tables", "version")

    def __init__(self, name: str, version: str, cksum: str) -> None:
        self.name = name
        self.version = version
        self.cksum = cksum
        self.tables: dict[str, TableSchema] = {}

    @classmethod
    def from_json(cls, json: Any) -> "DatabaseSchema":
        """Parse and check a `<database-schema>`. Raises OvsdbError."""
        members = parse(json, _SCHEMA, "database schema")
        version = members.get("version", "")
        if "version" in members and not _VERSION(version):
            raise syntax_error(json, f'schema version "{version}" not in format x.y.z')
        schema = cls(members["name"], version, members.get("cksum", ""))
        for name, table in members["tables"].items():
            _check_name(name, json)
            schema.tables[name] = _table_from_json(name, table)
        schema._default_root_set()
        schema._check_references()
        return schema

    def persist(self) -> list[tuple["TableSchema", Column]]:
        """Make every column a stored one; those that were not, each with its table.

        What is not stored cannot be shared, so clusters have no ephemeral columns (ovsdb(7)).
        """
        ephemeral = [
            (table, column)
            for table in self.tables.values()
            for column in table.columns.values()
            if column.index != VERSION and not column.persistent
        ]
        for _, column in ephemeral:
            column.persistent = True
        return ephemeral

    def _default_root_set(self) -> None:
        # Schemas older than "isRoot" have no garbage collection: every table is a root.
        if not any(table.is_root for table in self.tables.values()):
            for table in self.tables.values():
                table.is_root = True

    def _check_references(self) -> None:
        for table in self.tables.values():
            for column in table.columns.values():
                self._check_reference(column, column.type.key, "key")
                if column.type.value is not None:
                    self._check_reference(column, column.type.value, "value")

    def _check_reference(self, column: Column, base: BaseType, where: str) -> None:
        if base.ref_table is None:
            return
        target = self.tables.get(base.ref_table)
        if target is None:
            raise OvsdbError(
                "syntax error",
                f"column {column.name} {where} refers to undefined table {base.ref_table}",
            )
        if base.is_strong_ref and not target.is_root:
            # An ephemeral reference would let the log's replay collect the row it holds.
            column.persistent = True

    def to_json(self) -> dict[str, Any]:
        """The `<database-schema>`, as "get_schema" returns it (RFC 7047 section 4.1.2)."""
        json: dict[str, Any] = {"name": self.name}
        if self.version:
            json["version"] = self.version
        if self.cksum:
            json["cksum"] = self.cksum
        default = all(table.is_root for table in self.tables.values())
        json["tables"] = {name: table.to_json(default) for name, table in self.tables.items()}
        return json


def _check_name(name: str, json: Any) -> None:
    if name.startswith("_"):
        raise syntax_error(json, 'names beginning with "_" are reserved')
    if not is_id(name):
        raise syntax_error(json, "name must be a valid id")


def _table_from_json(name: str, json: Any) -> TableSchema:
    members = parse(json, _TABLE, f"table schema for table {name}")
    max_rows = int(members.get("maxRows", _MAX_UINT))
    if max_rows <= 0:
        raise syntax_error(json, "maxRows must be at least 1")
    if not members["columns"]:
        raise syntax_error(json, "table must have at least one column")
    table = TableSchema(
        name,
        mutable=members.get("mutable", True),
        max_rows=min(max_rows, _MAX_UINT),
        is_root=members.get("isRoot", False),
    )
    for column_name, column in members["columns"].items():
        _check_name(column_name, json)
        table.add(_column_from_json(column_name, column))
    for index in members.get("indexes", ()):
        table.indexes.append(_index_from_json(table, index, json))
    return table


def _index_from_json(table: TableSchema, index: Any, json: Any) -> tuple[Column, ...]:
    if type(index) is not list:
        raise syntax_error(index, "array of distinct column names expected")
    columns = table.column_set(index)
    if not columns:
        raise syntax_error(json, "index must have at least one column")
    for column in columns:
        if not column.persistent:
            message = f"ephemeral columns (such as {column.name}) may not be indexed"
            raise syntax_error(json, message)
    return columns


def _column_from_json(name: str, json: Any) -> Column:
    members = parse(json, _COLUMN, f"schema for column {name}")
    return Column(
        name,
        type_from_json(members["type"]),
        mutable=members.get("mutable", True),
        persistent=not members.get("ephemeral", False),
    )


def type_from_json(json: Any) -> ColumnType:
    """Parse a `<type>`. Raises OvsdbError."""
    if type(json) is str:
        return make_type(base_type_from_json(json), None, 1, 1)
    if type(json) is not dict:
        raise syntax_error(json, "ovsdb type expected")
    members = parse(json, _TYPE, "ovsdb type")
    key = base_type_from_json(members["key"])
    value = base_type_from_json(members["value"]) if "value" in members else None
    n_min = _count(members, "min")
    n_max = UNLIMITED if members.get("max") == "unlimited" else _count(members, "max")
    if n_min > 1 or n_max < 1:
        raise syntax_error(json, "ovsdb type fails constraint checks")
    return make_type(key, value, n_min, n_max)


def _count(members: dict[str, Any], name: str) -> int:
    count = members.get(name, 1)
    if not is_integer(count) or not 0 <= count < _MAX_UINT:
        raise syntax_error(count, "bad min or max value")
    return int(count)


def base_type_from_json(json: Any) -> BaseType:
    """Parse a `<base-type>`. Raises OvsdbError."""
    if type(json) is str:
        return BaseType(_atomic_type(json))
    check_members(json, (Member("type", is_string),), "ovsdb type")
    kind = _atomic_type(json["type"])
    members = parse(json, _base_type_shape(kind, json), "ovsdb type")
    minimum, maximum = _bounds(members, kind, json)
    enum = None
    if "enum" in members:
        atoms = make_type(BaseType(kind), None, 1, UNLIMITED).from_json(members["enum"], None)
        enum = tuple(atoms)
    ref_type = members.get("refType", "strong")
    if ref_type not in ("strong", "weak"):
        raise syntax_error(json, 'refType must be "strong" or "weak" (not "' + ref_type + '")')
    return BaseType(
        kind,
        minimum=minimum,
        maximum=maximum,
        enum=enum,
        ref_table=members.get("refTable"),
        ref_type=ref_type,
    )


def _base_type_shape(kind: str, json: dict[str, Any]) -> Shape:
    # An enum goes with no other constraint, nor "refType" without what it is about.
    if "enum" in json or (kind == "uuid" and "refTable" not in json):
        return _BASE_TYPE_COMMON
    return _BASE_TYPE_COMMON + _BASE_TYPE_MEMBERS[kind]


def _atomic_type(name: str) -> str:
    if name not in ATOMIC_TYPES:
        raise syntax_error(name, f'"{name}" is not an atomic-type')
    return name


def _bounds(members: dict[str, Any], kind: str, json: Any) -> tuple[Any, Any]:
    if kind not in _BOUNDS:
        return None, None
    low_name, high_name = _BOUNDS[kind]
    low, high = members.get(low_name), members.get(high_name)
    if kind == "string":
        for name, length in ((low_name, low), (high_name, high)):
            if length is not None and not 0 <= length <= _MAX_UINT:
                raise syntax_error(length, f"{name} out of valid range 0 to {_MAX_UINT}")
        # The absence of a limit and a limit that limits nothing are the same.
        low, high = low or None, None if high == _MAX_UINT else high
    if low is not None and high is not None and low > high:
        raise syntax_error(json, f"{low_name} exceeds {high_name}")
    return low, high


def base_type_to_json(base: BaseType) -> Any:
    """The `<base-type>`, in its short form where it has one."""
    if not base.has_constraints:
        return base.kind
    json: dict[str, Any] = {"type": base.kind}
    if base.enum is not None:
        enum_type = make_type(BaseType(base.kind), None, 1, UNLIMITED)
        json["enum"] = enum_type.json(base.enum)
    if base.kind in _BOUNDS:
        for name, bound in zip(_BOUNDS[base.kind], (base.minimum, base.maximum), strict=True):
            if bound is not None:
                json[name] = bound
    if base.ref_table is not None:
        json["refTable"] = base.ref_table
        if base.ref_type == "weak":
            json["refType"] = "weak"
    return json


def type_to_json(column_type: ColumnType) -> Any:
    """The `<type>`, in its short form where it has one."""
    key = base_type_to_json(column_type.key)
    if column_type.is_scalar and not column_type.key.has_constraints:
        return key
    json: dict[str, Any] = {"key": key}
    if column_type.value is not None:
        json["value"] = base_type_to_json(column_type.value)
    if column_type.n_min != 1:
        json["min"] = column_type.n_min
    if column_type.n_max == UNLIMITED:
        json["max"] = "unlimited"
    elif column_type.n_max != 1:
        json["max"] = column_type.n_max
    return json
