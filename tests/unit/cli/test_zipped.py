"""The door of the relay in one file."""

from __future__ import annotations

from tokenplace.cli.zipped import refusal, this_python


def test_a_file_for_another_python_names_both() -> None:
    told = refusal({"implementation": "cpython", "python": "3.99", "system": "linux", "machine": "riscv64"})
    assert told.startswith("tokenplace-relay.pyz: this file is for cpython 3.99 on linux riscv64; here is ")
    assert "{python} on {system} {machine}.".format(**this_python()) in told
