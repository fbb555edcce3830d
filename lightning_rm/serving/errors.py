"""Errors of requests: one sentence that names the field, in the JSON that vLLM and OpenAI use.

This file knows only texts and numbers.
"""

from __future__ import annotations

from typing import Any


class RequestError(ValueError):
    """A request that cannot be answered as it is.

    Args:
        message: what was found and what is wanted instead; the field's name is put before it.
        field: the field of the request that is wrong, such as `input[3]`; None for the whole request.
        status: the HTTP status, 4xx.
        kind: the error's type in the answer.
    """

    def __init__(
        self, message: str, field: str | None = None, status: int = 400, kind: str = "BadRequestError"
    ) -> None:
        super().__init__(message if field is None or message.startswith(field) else f"{field}: {message}")
        self.field = field
        self.status = status
        self.kind = kind


def error_body(message: str, kind: str, status: int, field: str | None = None) -> dict[str, Any]:
    """Return the JSON of an error: `{"error": {"message", "type", "param", "code"}}`.

    A message may quote what a client sent; half a surrogate pair in it is written as an escape.
    """
    return {
        "error": {"message": _printable(message), "type": kind, "param": field and _printable(field), "code": status}
    }


def found(value: object) -> str:
    """Return a value as an error shows it, short and on one line."""
    shown = ascii(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
