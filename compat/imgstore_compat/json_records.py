"""Lists of records in JSON, which a writer that did not come to its end leaves without an end."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any, NamedTuple

Record = dict[str, Any]

_SPACE = re.compile(r"[ \t\n\r]*")
_LITERALS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
# What the end of a text may leave of a string, of an escape in it, or of a number.
_UNFINISHED = re.compile(
    r'"(?:[^"\\]|\\.)*\\?|\\?u[0-9a-fA-F]{0,4}|\.|\.?\d*[eE][+-]?|-?', re.DOTALL
)


class Records(NamedTuple):
    """The records of a list.

    Attributes
    ----------
    records
        Those that are whole.
    complete
        Whether the list has its end.
    """

    records: list[Record]
    complete: bool


def parse_records(data: bytes) -> Records:
    """Read a list of records, up to the last whole one where it breaks off.

    Raises
    ------
    ValueError, TypeError, RecursionError
        It is damaged, or something else.
    """
    text = codecs.getincrementaldecoder("utf-8")().decode(data)
    # After a loss of power a file may end in zeros, which were never written.
    written = text.rstrip("\0")
    try:
        document = json.loads(written)
    except json.JSONDecodeError:
        return Records(_whole_records(written), complete=False)
    if not isinstance(document, list):
        raise TypeError("no list of records")
    return Records([_record(value) for value in document], complete=written == text)


def _record(value: Any) -> Record:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no record")
    return value


def _whole_records(text: str) -> list[Record]:
    decoder = json.JSONDecoder()
    records: list[Record] = []
    at, before = _after_space(text, 0), "["
    while at < len(text):
        if text[at] != before:
            raise json.JSONDecodeError(f"Expecting {before!r}", text, at)
        at = _after_space(text, at + 1)
        if at == len(text):
            break
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            if _is_cut_off(text, error.pos):
                break
            raise
        records.append(_record(value))
        at, before = _after_space(text, at), ","
    return records


def _is_cut_off(text: str, at: int) -> bool:
    """Whether what could not be parsed is only what the end of the text leaves of it."""
    rest = text[_after_space(text, at) :]
    return bool(_UNFINISHED.fullmatch(rest)) or any(name.startswith(rest) for name in _LITERALS)


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
