"""The condition of a selection: which rows of a table it rejects, and why. Knows no store and no order of rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.selection import terms
from pipelines.selection.columns import Columns
from pipelines.selection.expression import compile_operands
from pipelines.selection.terms import Term

KEPT = -1
"""In place of a reason's number."""


class Where:
    """A condition. The reason of a row is the first operand of the outermost ``and`` that is false, as written; where
    none is false and one is missing, the column whose value is missing.
    """

    def __init__(self, text: str, columns: Columns) -> None:
        """Raises ExpressionError."""
        self._columns = columns
        self._operands = compile_operands(text, "where", columns)
        self._numbers: dict[str, int] = {}
        self._missing: set[int] = set()

    @property
    def columns(self) -> tuple[str, ...]:
        """Keys of the columns that it reads."""
        return terms.merged(*(term.columns for _, term in self._operands))

    @property
    def reasons(self) -> list[str]:
        """The reasons so far, by their numbers."""
        return list(self._numbers)

    @property
    def missing(self) -> frozenset[int]:
        """The numbers of the reasons that say that a value is missing."""
        return frozenset(self._missing)

    def reject(self, table: pa.Table) -> npt.NDArray[np.int32]:
        """For each row of a table with ``columns``: the number of its reason, or KEPT."""
        found = np.full(table.num_rows, KEPT, np.int32)
        values = [terms.as_array(term.evaluate(table), table.num_rows) for _, term in self._operands]
        for (text, _), value in zip(self._operands, values, strict=True):
            self._mark(found, ~_mask(value.fill_null(True)), text)
        for (text, term), value in zip(self._operands, values, strict=True):
            self._mark_missing(found, _mask(value.is_null()), text, term, table)
        return found

    def _mark_missing(
        self, found: npt.NDArray[np.int32], is_missing: npt.NDArray[np.bool_], text: str, term: Term, table: pa.Table
    ) -> None:
        if not (is_missing & (found == KEPT)).any():
            return
        for key in term.doubtful:
            kind = self._columns[key].kind
            assert kind is not None, key
            has_none = _mask(terms.plain(table[key].combine_chunks(), kind).is_null())
            self._mark(found, is_missing & has_none, f"{self._columns.shown(key)} is missing", self._missing)
        self._mark(found, is_missing, f"{text} has no value", self._missing)

    def _mark(
        self,
        found: npt.NDArray[np.int32],
        is_meant: npt.NDArray[np.bool_],
        reason: str,
        numbers: set[int] | None = None,
    ) -> None:
        is_new = is_meant & (found == KEPT)
        if is_new.any():
            found[is_new] = number = self._numbers.setdefault(reason, len(self._numbers))
            if numbers is not None:
                numbers.add(number)


def _mask(values: pa.Array) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = values.to_numpy(zero_copy_only=False)
    return found.astype(bool)
