"""Where things are kept, on each platform."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from platformdirs.macos import MacOS

from tokenplace import places

SOURCE = Path(places.__file__).parent


def test_one_module_decides_where_things_are_kept() -> None:
    users = [file.name for file in SOURCE.rglob("*.py") if "import platformdirs" in file.read_text()]
    assert users == ["places.py"], "tokenplace.places says where"


@pytest.mark.parametrize(
    ("variable", "place"),
    [("XDG_STATE_HOME", places.state), ("XDG_DATA_HOME", places.data), ("XDG_CONFIG_HOME", places.config)],
)
def test_xdg_directories_are_heeded(
    variable: str, place: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "own"))
    assert place() == tmp_path / "own" / "token.place"
    assert not (tmp_path / "own").exists(), "naming a directory does not make it"


def test_without_them_they_are_the_originals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert places.data() == tmp_path / ".local" / "share" / "token.place"
    assert places.config() == tmp_path / ".config" / "token.place"
    assert places.state() == tmp_path / ".local" / "state" / "token.place"


def test_on_macos_everything_is_in_application_support(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    mac = MacOS("token.place", False)
    assert mac.user_data_dir.endswith("Library/Application Support/token.place")
    assert mac.user_config_dir == mac.user_data_dir == mac.user_state_dir
