"""Where each platform keeps what: one answer for every program.

On Linux these are `~/.local/state/token.place`, `~/.local/share/token.place` and `~/.config/token.place`, or below
XDG_STATE_HOME, XDG_DATA_HOME and XDG_CONFIG_HOME; on macOS `~/Library/Application Support/token.place`; on Windows
`%LOCALAPPDATA%\\token.place`, and `%APPDATA%\\token.place` for configuration. Nothing here makes a directory.
"""

from __future__ import annotations

from pathlib import Path

import platformdirs

_NAME = "token.place"


def state() -> Path:
    """Identities, invitations, nodes met: what a program remembers, and what must not leave this machine."""
    return Path(platformdirs.user_state_dir(_NAME, appauthor=False))


def data() -> Path:
    """Model files and other things that can be had again."""
    return Path(platformdirs.user_data_dir(_NAME, appauthor=False))


def config() -> Path:
    """Configuration files; on Windows they follow a person from machine to machine."""
    return Path(platformdirs.user_config_dir(_NAME, appauthor=False, roaming=True))
