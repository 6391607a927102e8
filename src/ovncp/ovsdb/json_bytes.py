"""A value as JSON text, in which what was no UTF-8 when it came in goes out as it came."""

import json
from typing import Any

import orjson


def encode(value: Any) -> bytes:
    """`value` as compact JSON text; a lone surrogate in a string stands for a byte."""
    try:
        return orjson.dumps(value)
    except TypeError:  # a lone surrogate, or deeper than orjson goes
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "surrogateescape")
