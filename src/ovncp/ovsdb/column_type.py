"""Column types, and the datums that columns of each type hold.

RFC 7047 sections 3.2 (`<type>`) and 5.1 (`<value>`). There are three kinds of type, each with its
own form of datum, all immutable:

    scalar (exactly one)   the atom itself
    set                    a tuple of atoms in order
    map                    a dict in the order of its keys (never changed once made)
"""

from abc import ABCMeta, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from ovncp.ovsdb.atom import (
    DEFAULTS,
    TO_JSON,
    Atom,
    BaseType,
    Symbols,
    atom_to_string,
    unwrap,
)
from ovncp.ovsdb.errors import OvsdbError, constraint_violation, syntax_error

Datum = Any
EMPTY_SET: Final[tuple[Atom, ...]] = ()
EMPTY_MAP: Final[dict[Atom, Atom]] = {}

UNLIMITED: Final = 2**32 - 1

# Sets of fewer elements, both together, are compared with no search for what they share.
_SMALL: Final = 64


class ColumnType(metaclass=ABCMeta):
    """The type of a column: how many of which atoms.

    `default` is the datum of a column that an "insert" does not name (RFC 7047 section 5.2.1).
    `to_json` is the JSON form of a datum, or None where the datum is its own JSON form.
    """

    __slots__ = ("default", "key", "n_max", "n_min", "to_json", "value")

    is_map = False
    is_scalar = False

    def __init__(self, key: BaseType, value: BaseType | None, n_min: int, n_max: int) -> None:
        self.key = key
        self.value = value
        self.n_min = n_min
        self.n_max = n_max
        self.default: Datum = self._default()
        self.to_json: Callable[[Datum], Any] | None = self._make_to_json()

    @property
    def is_optional_scalar(self) -> bool:
        """Whether the type is a set of at most one atom."""
        return not self.is_map and self.n_min == 0 and self.n_max == 1

    @abstractmethod
    def _default(self) -> Datum: ...

    @abstractmethod
    def _make_to_json(self) -> Callable[[Datum], Any] | None: ...

    @abstractmethod
    def from_json(self, json: Any, symbols: Symbols | None) -> Datum:
        """The datum for a `<value>`. Raises OvsdbError when it is not one of this type."""

    @abstractmethod
    def size(self, datum: Datum) -> int:
        """The number of elements (of a map: of pairs)."""

    @abstractmethod
    def keys(self, datum: Datum) -> Collection[Atom]:
        """The elements (of a map: the keys)."""

    @abstractmethod
    def values(self, datum: Datum) -> Collection[Atom]:
        """The values of a map; nothing for other types."""

    @abstractmethod
    def includes(self, datum: Datum, arg: Datum) -> bool:
        """Whether every element of `arg` is in `datum` (RFC 7047 section 5.1, "includes")."""

    @abstractmethod
    def excludes(self, datum: Datum, arg: Datum) -> bool:
        """Whether no element of `arg` is in `datum` (RFC 7047 section 5.1, "excludes")."""

    @abstractmethod
    def symmetric_difference(self, old: Datum, new: Datum) -> Datum:
        """What leads from `old` to `new`, for a type of more than one element."""

    @abstractmethod
    def apply_symmetric_difference(self, old: Datum, diff: Datum) -> Datum:
        """The inverse of `symmetric_difference`."""

    @abstractmethod
    def removed_and_added(self, old: Datum, new: Datum) -> tuple[list[Any], list[Any]]:
        """The elements (of a map: the pairs) that only `old` has, and those that only `new` has.

        The work beyond comparing the two word by word is for the elements that differ.
        """

    @abstractmethod
    def union(self, datum: Datum, addition: Datum) -> Datum:
        """`datum` with the elements of `addition` that it lacks; a map keeps its own values."""

    @abstractmethod
    def without(self, datum: Datum, removal: Datum) -> Datum:
        """`datum` without the elements (of a map: the pairs) of `removal`."""

    def diff(self, old: Datum, new: Datum) -> Datum:
        """The difference as "update2" and the log record it (ovsdb-server(7) section 4.1.14).

        It is the new datum for a column of at most one element.
        """
        return new if self.n_max == 1 else self.symmetric_difference(old, new)

    def apply_diff(self, old: Datum, diff: Datum) -> Datum:
        """The datum that `diff` leads to from `old`."""
        return diff if self.n_max == 1 else self.apply_symmetric_difference(old, diff)

    def json(self, datum: Datum) -> Any:
        """The JSON form of `datum`."""
        return datum if self.to_json is None else self.to_json(datum)

    def with_bounds(self, n_min: int, n_max: int) -> "ColumnType":
        """The same type with other bounds, and the kind that has datums of this one's form."""
        return type(self)(self.key, self.value, n_min, n_max)

    def conforms(self, datum: Datum) -> bool:
        """Whether `datum` has a number of elements that the type allows."""
        return self.n_min <= self.size(datum) <= self.n_max

    def check(self, datum: Datum) -> None:
        """Check every atom's constraints: OvsdbError, "constraint violation"."""
        for atom in self.keys(datum):
            self.key.check(atom)
        if self.value is not None:
            for atom in self.values(datum):
                self.value.check(atom)

    def n_atoms(self, datum: Datum) -> int:
        """The number of atoms, as `memory/show` counts them."""
        return self.size(datum)

    def sort_key(self, datum: Datum) -> Any:
        """A key by which datums of the type are ordered: fewer elements first."""
        keys = tuple(self.keys(datum))
        return (len(keys), keys, tuple(self.values(datum)))

    def to_string(self, datum: Datum) -> str:
        """`datum` as the command-line tools print it (ovsdb(7), "Database Values")."""
        texts = self._element_strings(datum)
        if self.n_max > 1 or not texts:
            opening, closing = "{}" if self.is_map else "[]"
            return f"{opening}{', '.join(texts)}{closing}"
        return texts[0]

    def _element_strings(self, datum: Datum) -> list[str]:
        return [atom_to_string(atom, self.key.kind) for atom in self.keys(datum)]

    def to_english(self) -> str:
        """The type in the words of error messages."""
        if self.is_scalar:
            return self.key.kind
        if self.n_max == UNLIMITED:
            count = f" of {self.n_min} or more" if self.n_min else " of"
        elif self.n_min:
            count = f" of {self.n_min} to {self.n_max}"
        else:
            count = f" of up to {self.n_max}"
        if self.value is None:
            return f"set{count} {self.key.kind}s"
        return f"map{count} ({self.key.kind}, {self.value.kind}) pairs"

    def _check_count(self, json: Any, word: str, count: int) -> None:
        if self.n_min <= count <= self.n_max:
            return
        if self.n_min == 1 and self.n_max == 1:
            raise syntax_error(json, f"{word} must have exactly one member but {count} are present")
        raise syntax_error(
            json,
            f"{word} must have {self.n_min} to {self.n_max} members but {count} are present",
        )

    def _set_atoms(self, json: Any, symbols: Symbols | None) -> list[Atom]:
        """The atoms of `["set", ...]`, in order and checked."""
        elements = unwrap(json, "set", list)
        self._check_count(json, "set", len(elements))
        parse = self.key.parse
        atoms = [parse(element, symbols) for element in elements]
        if len(atoms) > 1:
            if len(set(atoms)) != len(atoms):
                raise OvsdbError("ovsdb error", "set contains duplicate")
            atoms.sort()
        return atoms


def _is_set_json(json: Any) -> bool:
    return type(json) is list and len(json) > 0 and json[0] == "set"


class ScalarType(ColumnType):
    """Exactly one atom."""

    __slots__ = ()

    is_scalar = True

    def _default(self) -> Datum:
        return DEFAULTS[self.key.kind]

    def _make_to_json(self) -> Callable[[Datum], Any] | None:
        return TO_JSON[self.key.kind]

    def from_json(self, json: Any, symbols: Symbols | None) -> Datum:
        if _is_set_json(json):
            return self._set_atoms(json, symbols)[0]
        return self.key.parse(json, symbols)

    def with_bounds(self, n_min: int, n_max: int) -> ColumnType:
        return self

    def size(self, datum: Datum) -> int:
        return 1

    def keys(self, datum: Datum) -> Collection[Atom]:
        return (datum,)

    def values(self, datum: Datum) -> Collection[Atom]:
        return ()

    def includes(self, datum: Datum, arg: Datum) -> bool:
        return bool(datum == arg)

    def excludes(self, datum: Datum, arg: Datum) -> bool:
        return bool(datum != arg)

    def symmetric_difference(self, old: Datum, new: Datum) -> Datum:
        return new

    def apply_symmetric_difference(self, old: Datum, diff: Datum) -> Datum:
        return diff

    def removed_and_added(self, old: Datum, new: Datum) -> tuple[list[Any], list[Any]]:
        return ([], []) if old == new else ([old], [new])

    def union(self, datum: Datum, addition: Datum) -> Datum:
        return datum

    def without(self, datum: Datum, removal: Datum) -> Datum:
        return datum


class SetType(ColumnType):
    """A set of atoms."""

    __slots__ = ()

    def _default(self) -> Datum:
        return (DEFAULTS[self.key.kind],) if self.n_min else EMPTY_SET

    def _make_to_json(self) -> Callable[[Datum], Any]:
        atom_json = TO_JSON[self.key.kind]
        if atom_json is None:
            return lambda datum: datum[0] if len(datum) == 1 else ("set", datum)

        def to_json(datum: Datum) -> Any:
            if len(datum) == 1:
                return atom_json(datum[0])
            return ("set", [atom_json(atom) for atom in datum])

        return to_json

    def from_json(self, json: Any, symbols: Symbols | None) -> Datum:
        if _is_set_json(json):
            return tuple(self._set_atoms(json, symbols))
        return (self.key.parse(json, symbols),)

    def size(self, datum: Datum) -> int:
        return len(datum)

    def keys(self, datum: Datum) -> Collection[Atom]:
        atoms: tuple[Atom, ...] = datum
        return atoms

    def values(self, datum: Datum) -> Collection[Atom]:
        return ()

    def includes(self, datum: Datum, arg: Datum) -> bool:
        return all(atom in datum for atom in arg) if len(arg) < 3 else set(arg) <= set(datum)

    def excludes(self, datum: Datum, arg: Datum) -> bool:
        return set(arg).isdisjoint(datum)

    def symmetric_difference(self, old: Datum, new: Datum) -> Datum:
        removed, added = self.removed_and_added(old, new)
        return tuple(sorted(removed + added))

    def apply_symmetric_difference(self, old: Datum, diff: Datum) -> Datum:
        if not old:
            return diff
        if len(diff) == 1:
            return self.without(old, diff) if _has(old, diff[0]) else self.union(old, diff)
        return tuple(sorted(set(old).symmetric_difference(diff)))

    def removed_and_added(self, old: Datum, new: Datum) -> tuple[list[Any], list[Any]]:
        if len(old) + len(new) > _SMALL:
            old, new = _where_they_differ(old, new)
        old_set, new_set = set(old), set(new)
        return list(old_set - new_set), list(new_set - old_set)

    def union(self, datum: Datum, addition: Datum) -> Datum:
        if not datum:
            return addition
        if len(addition) == 1:
            atom = addition[0]
            place = bisect_left(datum, atom)
            if place < len(datum) and datum[place] == atom:
                return datum
            return (*datum[:place], atom, *datum[place:])
        new = set(addition).difference(datum)
        # Sorting two sorted runs is a merge.
        return tuple(sorted((*datum, *sorted(new)))) if new else datum

    def without(self, datum: Datum, removal: Datum) -> Datum:
        if len(removal) == 1:
            place = bisect_left(datum, removal[0])
            if place < len(datum) and datum[place] == removal[0]:
                return datum[:place] + datum[place + 1 :]
            return datum
        unwanted = set(removal)
        return tuple(atom for atom in datum if atom not in unwanted)


def _has(atoms: tuple[Atom, ...], atom: Any) -> bool:
    place = bisect_left(atoms, atom)
    return place < len(atoms) and atoms[place] == atom


def _common_prefix(a: tuple[Atom, ...], b: tuple[Atom, ...]) -> int:
    """How many atoms `a` and `b` begin with in common; slices compare at the speed of C."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _where_they_differ(
    a: tuple[Atom, ...], b: tuple[Atom, ...]
) -> tuple[tuple[Atom, ...], tuple[Atom, ...]]:
    """`a` and `b` without the beginning and the end that they share."""
    prefix = _common_prefix(a, b)
    a, b = a[prefix:], b[prefix:]
    suffix = _common_prefix(a[::-1], b[::-1])
    return a[: len(a) - suffix], b[: len(b) - suffix]


class MapType(ColumnType):
    """A map from atoms to atoms."""

    __slots__ = ("_value",)

    is_map = True

    def __init__(self, key: BaseType, value: BaseType | None, n_min: int, n_max: int) -> None:
        assert value is not None
        self._value = value
        super().__init__(key, value, n_min, n_max)

    def _default(self) -> Datum:
        if not self.n_min:
            return EMPTY_MAP
        return {DEFAULTS[self.key.kind]: DEFAULTS[self._value.kind]}

    def _make_to_json(self) -> Callable[[Datum], Any]:
        key_json = TO_JSON[self.key.kind]
        value_json = TO_JSON[self._value.kind]
        if key_json is None and value_json is None:
            return lambda datum: ("map", list(datum.items()))

        def show(atom: Any) -> Any:
            return atom

        show_key, show_value = key_json or show, value_json or show
        return lambda datum: (
            "map",
            [(show_key(key), show_value(value)) for key, value in datum.items()],
        )

    def from_json(self, json: Any, symbols: Symbols | None) -> Datum:
        pairs = unwrap(json, "map", list)
        self._check_count(json, "map", len(pairs))
        if not pairs:
            return EMPTY_MAP
        parse_key, parse_value = self.key.parse, self._value.parse
        datum: dict[Atom, Atom] = {}
        for pair in pairs:
            if type(pair) is not list or len(pair) != 2:
                raise syntax_error(pair, "expected 2-element array")
            key = parse_key(pair[0], symbols)
            datum[key] = parse_value(pair[1], symbols)
        if len(datum) == 1 and len(pairs) == 1:
            return datum
        if len(datum) != len(pairs):
            raise OvsdbError("ovsdb error", "map contains duplicate key")
        return dict(sorted(datum.items()))

    def size(self, datum: Datum) -> int:
        return len(datum)

    def keys(self, datum: Datum) -> Collection[Atom]:
        keys: Collection[Atom] = datum.keys()
        return keys

    def values(self, datum: Datum) -> Collection[Atom]:
        values: Collection[Atom] = datum.values()
        return values

    def n_atoms(self, datum: Datum) -> int:
        return 2 * len(datum)

    def includes(self, datum: Datum, arg: Datum) -> bool:
        missing = object()
        return all(datum.get(key, missing) == value for key, value in arg.items())

    def excludes(self, datum: Datum, arg: Datum) -> bool:
        missing = object()
        return all(datum.get(key, missing) != value for key, value in arg.items())

    def symmetric_difference(self, old: Datum, new: Datum) -> Datum:
        changed = {key: value for key, value in old.items() if key not in new}
        changed.update(
            (key, value) for key, value in new.items() if key not in old or old[key] != value
        )
        return dict(sorted(changed.items()))

    def apply_symmetric_difference(self, old: Datum, diff: Datum) -> Datum:
        if not old:
            return diff
        new = dict(old)
        for key, value in diff.items():
            if key in new and new[key] == value:
                del new[key]
            else:
                new[key] = value
        return dict(sorted(new.items()))

    def removed_and_added(self, old: Datum, new: Datum) -> tuple[list[Any], list[Any]]:
        return list(old.items() - new.items()), list(new.items() - old.items())

    def union(self, datum: Datum, addition: Datum) -> Datum:
        new = {key: value for key, value in addition.items() if key not in datum}
        return dict(sorted({**datum, **new}.items())) if new else datum

    def without(self, datum: Datum, removal: Datum) -> Datum:
        missing = object()
        return {key: value for key, value in datum.items() if removal.get(key, missing) != value}

    def without_keys(self, datum: Datum, keys: Iterable[Atom]) -> Datum:
        """`datum` without the pairs of `keys`."""
        unwanted = set(keys)
        return {key: value for key, value in datum.items() if key not in unwanted}

    def _element_strings(self, datum: Datum) -> list[str]:
        key_kind, value_kind = self.key.kind, self._value.kind
        return [
            f"{atom_to_string(key, key_kind)}={atom_to_string(value, value_kind)}"
            for key, value in datum.items()
        ]


def make_type(key: BaseType, value: BaseType | None, n_min: int, n_max: int) -> ColumnType:
    """The column type of the kind that the arguments call for."""
    if value is not None:
        return MapType(key, value, n_min, n_max)
    return (ScalarType if n_min == n_max == 1 else SetType)(key, None, n_min, n_max)


def store_error(column_type: ColumnType, count: int) -> OvsdbError:
    """The error for a datum of `count` elements that the type does not allow."""
    return constraint_violation(
        f"Attempted to store {count} elements in {column_type.to_english()}."
    )
