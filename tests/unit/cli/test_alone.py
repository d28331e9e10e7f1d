"""One node for each identity on a machine: two would take each other's place at their relays, in turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenplace.cli.node import TwiceHere, alone


def test_a_second_node_with_the_same_identity_hears_what_to_do(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(TwiceHere, match="TOKEN_PLACE_STATE_DIR"), alone(tmp_path):
        raise AssertionError


def test_after_the_first_has_stopped_another_may_start(tmp_path: Path) -> None:
    for _ in range(2):
        with alone(tmp_path):
            assert (tmp_path / "node.lock").exists()


def test_two_folders_are_two_nodes(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with alone(tmp_path), alone(tmp_path / "other"):
        pass


def test_a_folder_that_cannot_be_written_to_keeps_nobody_from_serving(tmp_path: Path) -> None:
    with alone(tmp_path / "missing"):
        pass
