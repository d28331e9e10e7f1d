"""Tells that somebody has voted today without knowing tomorrow who it was.

A voter is a keyed hash of client and model under a key of that day. The key stands in a file, so that several processes
agree, and is thrown away with the day; from then on nobody can find out whose vote a line was, not even by trying every
address there is. Two models of the same client have hashes that nobody can join.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from datetime import date
from pathlib import Path

from tokenplace.community.journal import put_file


class Voters:
    """The day's key, kept in one file. Call under the lock of the file that the votes are in. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def name(self, client: str, model: str, day: date) -> str:
        """What today's vote of this client for this model is filed under."""
        said = json.dumps([client, model]).encode()
        return hmac.digest(self._key(day), said, "sha256")[:16].hex()

    def outdated(self, day: date) -> bool:
        """Whether the key of another day is still there."""
        return self._path.exists() and self._kept(day) is None

    def forget(self, day: date) -> None:
        """Throw away the key of any other day."""
        if self.outdated(day):
            self._path.unlink()

    def _key(self, day: date) -> bytes:
        key = self._kept(day)
        if key is None:
            key = secrets.token_bytes(hashlib.sha256().digest_size)
            put_file(self._path, json.dumps({"day": day.isoformat(), "key": key.hex()}).encode())
        return key

    def _kept(self, day: date) -> bytes | None:
        try:
            kept = json.loads(self._path.read_bytes())
            return bytes.fromhex(kept["key"]) if kept["day"] == day.isoformat() else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
