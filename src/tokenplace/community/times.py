"""Times as the files and answers have them: UTC, whole seconds, `2026-01-31T12:00:00Z`."""

from __future__ import annotations

from datetime import UTC, datetime


def show_time(at: datetime) -> str:
    """As the files have it."""
    return at.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def read_time(text: object) -> datetime:
    """ISO 8601 with a zone. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError("a time is a text")
    at = datetime.fromisoformat(text.strip())
    if at.tzinfo is None:
        raise ValueError("a time has a zone")
    return at.astimezone(UTC)
