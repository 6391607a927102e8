"""The rows of a table as they are in a first dump, as a few long pieces of bytes.

A piece is made of some neighbouring rows and kept, so that whoever asks for a dump is given what
others were given, and a changed row costs its own piece. Pieces are never changed: a dump that is
on its way to a client stays one state of the table, whatever happens to the table meanwhile.
"""

from collections.abc import Callable, Iterator

from ovncp.ovsdb.encoded import PIECES
from ovncp.ovsdb.row import Row
from ovncp.ovsdb.table import Table

ROWS_PER_PIECE = 128
_FEWEST_ROWS = ROWS_PER_PIECE // 4


class Piece:
    """Some rows. `data` has each with a comma before it."""

    __slots__ = ("data", "uuids")

    def __init__(self) -> None:
        self.uuids: dict[str, None] = {}
        self.data = b""


class Dump:
    """All rows of `table`, each in the form that `encode` gives it.

    As in `RowIndex`, the table may be ahead of what is visible while pieces are made, and `touch`
    is called for each row whose change becomes visible or is taken back.
    """

    __slots__ = ("_encode", "_last", "_piece_of", "_pieces", "_stale", "_table", "_touched")

    def __init__(self, table: Table, encode: Callable[[Row], bytes]) -> None:
        self._table = table
        self._encode = encode
        self._last = Piece()
        self._pieces: dict[Piece, None] = {self._last: None}
        self._piece_of: dict[str, Piece] = {}
        self._touched: dict[str, None] = dict.fromkeys(reversed(table.rows))
        self._stale: dict[Piece, None] = {}

    def touch(self, uuid: str) -> None:
        """Note that the row `uuid` is new, changed, or gone."""
        self._touched[uuid] = None

    def refresh(self) -> Iterator[None]:
        """Bring the pieces up to date, step by step."""
        while self._touched or self._stale:
            for _ in range(min(ROWS_PER_PIECE, len(self._touched))):
                self._place(self._touched.popitem()[0])
            if self._stale:
                self._join(self._stale.popitem()[0])
            yield

    def pieces(self) -> list[bytes]:
        """All rows, joined by commas."""
        for _ in self.refresh():
            pass
        found = [piece.data for piece in self._pieces if piece.data]
        PIECES.used += len(found)
        if found:
            found[0] = found[0][1:]
        return found

    def _place(self, uuid: str) -> None:
        """Put the row where it belongs: where it was, or behind all others, or nowhere."""
        piece = self._piece_of.get(uuid)
        if uuid not in self._table.rows:
            if piece is not None:
                self._remove(uuid, piece)
            return
        if piece is None:
            if len(self._last.uuids) >= ROWS_PER_PIECE:
                self._last = Piece()
                self._pieces[self._last] = None
            piece = self._piece_of[uuid] = self._last
            piece.uuids[uuid] = None
        self._stale[piece] = None

    def _remove(self, uuid: str, piece: Piece) -> None:
        del self._piece_of[uuid], piece.uuids[uuid]
        self._stale[piece] = None
        if len(piece.uuids) < _FEWEST_ROWS and piece is not self._last:
            # Its few rows find a place in another piece.
            del self._pieces[piece], self._stale[piece]
            for other in piece.uuids:
                del self._piece_of[other]
                self._touched[other] = None

    def _join(self, piece: Piece) -> None:
        PIECES.made += 1
        rows, encode = self._table.rows, self._encode
        found = map(rows.get, piece.uuids)
        piece.data = b"".join([b"," + encode(row) for row in found if row is not None])


def joined(rows: list[bytes]) -> list[bytes]:
    """`rows`, joined by commas, for a dump that nobody else is given."""
    pieces: list[bytes] = []
    for start in range(0, len(rows), ROWS_PER_PIECE):
        pieces += [b",", b",".join(rows[start : start + ROWS_PER_PIECE])]
    return pieces[1:]
