"""The order in which the C programs list the members of a JSON object.

They keep an object's members in a hash table (OVS's `shash`, buckets that are stacks, MurmurHash3
over the names) and print them as they find them there. A listing that is to be compared with
theirs line by line has to be in the same order; nothing else should depend on it.
"""

from collections.abc import Iterable

_MASK = 0xFFFFFFFF


def in_hash_order(names: Iterable[str]) -> list[str]:
    """`names`, given in the order of the text, in the order of a listing by the C programs."""
    buckets: list[list[tuple[int, str]]] = [[]]
    for n_names, name in enumerate(names, 1):
        _insert(buckets, (name_hash(name), name))
        if n_names // 2 >= len(buckets):
            buckets = _grown(buckets, n_names)
    return [name for bucket in buckets for _, name in reversed(bucket)]


def _insert(buckets: list[list[tuple[int, str]]], node: tuple[int, str]) -> None:
    buckets[node[0] & (len(buckets) - 1)].append(node)


def _grown(buckets: list[list[tuple[int, str]]], n_names: int) -> list[list[tuple[int, str]]]:
    """A larger table, filled from the old one's buckets from the top of each stack down."""
    size = 1 << (n_names // 2).bit_length()
    larger: list[list[tuple[int, str]]] = [[] for _ in range(max(size, 4))]
    for bucket in buckets:
        for node in reversed(bucket):
            _insert(larger, node)
    return larger


def name_hash(name: str) -> int:
    """The 32-bit MurmurHash3 of the UTF-8 bytes of `name`, with seed 0."""
    data = name.encode("utf-8", "surrogateescape")
    n_whole = len(data) & ~3
    value = 0
    for place in range(0, n_whole, 4):
        value = _add(value, int.from_bytes(data[place : place + 4], "little"))
    if n_whole < len(data):
        # Murmur proper would not rotate after the odd bytes at the end; OVS does.
        value = _add(value, int.from_bytes(data[n_whole:], "little"))
    return _finish(value ^ len(data))


def _add(value: int, word: int) -> int:
    word = _rotated(word * 0xCC9E2D51 & _MASK, 15) * 0x1B873593 & _MASK
    return (_rotated(value ^ word, 13) * 5 + 0xE6546B64) & _MASK


def _rotated(word: int, n_bits: int) -> int:
    return (word << n_bits | word >> (32 - n_bits)) & _MASK


def _finish(value: int) -> int:
    value = (value ^ value >> 16) * 0x85EBCA6B & _MASK
    value = (value ^ value >> 13) * 0xC2B2AE35 & _MASK
    return value ^ value >> 16
