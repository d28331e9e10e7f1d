"""Fetching, finding and checking model files, against a real HTTP server that misbehaves."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stage import free_port
from tokenplace.errors import WeightsError
from tokenplace.node.downloads import _loses_encryption
from tokenplace.node.hub import Hub as HuggingFace
from tokenplace.node.named import model_named
from tokenplace.node.settings import NodeSettings
from tokenplace.node.weights import (
    Against,
    Held,
    Verified,
    Weights,
)
from tokenplace.openai.catalogue import (
    AdapterEntry,
    Catalogue,
    HubSource,
    ModelEntry,
    ModelFile,
    UrlSource,
    WheelSource,
)

DATA = os.urandom(3 * 1024 * 1024 + 17)
SHA = hashlib.sha256(DATA).hexdigest()
NAME = "m.gguf"
Behaviour = Callable[["Hub", BaseHTTPRequestHandler], None]


class Hub:
    """Serves one file. Each request takes the next behaviour of `script`, then `properly` again and again."""

    def __init__(self) -> None:
        self.data = DATA
        self.script: list[Behaviour] = []
        self.ranges: list[str | None] = []
        self.paths: list[str] = []
        self.tokens: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.paths.append(self.path)
                outer.ranges.append(self.headers.get("Range"))
                outer.tokens.append(self.headers.get("Authorization"))
                (outer.script.pop(0) if outer.script else properly)(outer, self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def answer(
    hub: Hub,
    handler: BaseHTTPRequestHandler,
    *,
    upto: int | None = None,
    length: int | None = None,
    headers: dict[str, str] | None = None,
) -> None:
    """The file from where it was asked for, with `upto` bytes of it at most and `length` bytes announced."""
    start = 0
    if (span := handler.headers.get("Range")) and handler.headers.get("If-Range", '"v1"') == '"v1"':
        start = int(span.removeprefix("bytes=").removesuffix("-"))
        if start >= len(hub.data):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(hub.data)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(hub.data) - 1}/{len(hub.data)}")
    handler.send_header("ETag", '"v1"')
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    body = hub.data[start:]
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    with contextlib.suppress(ConnectionError):
        handler.wfile.write(body if upto is None else body[:upto])
    handler.close_connection = True


def properly(hub: Hub, handler: BaseHTTPRequestHandler) -> None:
    answer(hub, handler)


def cut_after(count: int) -> Behaviour:
    return lambda hub, handler: answer(hub, handler, upto=count)


def says(status: int, **headers: str) -> Behaviour:
    def behave(hub: Hub, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return behave


def announces(length: int) -> Behaviour:
    return lambda hub, handler: answer(hub, handler, length=length)


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def weights(tmp_path: Path, hub: Hub, slept: list[float]) -> Weights:
    hugging_face = HuggingFace(endpoint=hub.url, cache=tmp_path / "hf", token="hf_secret")
    return Weights(tmp_path / "models", hub=hugging_face, sleep=slept.append, patience=5.0)


BASE = Catalogue.load().models[1]


def entry(hub: Hub, *, sha256: str | None = SHA, size: int | None = len(DATA)) -> ModelEntry:
    return replace(BASE, file=ModelFile(NAME, size, sha256), source=UrlSource(f"{hub.url}/files/{NAME}"))


def on_the_hub(*, sha256: str | None = None, size: int | None = None) -> ModelEntry:
    return replace(BASE, file=ModelFile(NAME, size, sha256), source=HubSource("owner", "repo-GGUF", "abc"))


def names(weights: Weights) -> set[str]:
    return {path.name for path in weights.directory.iterdir() if path.suffix != ".lock"}


class TestPulling:
    def test_a_file_comes_whole_is_checked_and_only_then_gets_its_name(self, hub: Hub, weights: Weights) -> None:
        got = weights.pull(entry(hub))
        assert got == Verified(weights.directory / NAME, SHA, Against.CATALOGUE)
        assert got.path.read_bytes() == DATA
        assert names(weights) == {NAME, f"{NAME}.verified"}

    def test_progress_grows_to_the_whole_and_knows_it_beforehand(self, hub: Hub, weights: Weights) -> None:
        told: list[tuple[int, int | None]] = []
        weights.pull(entry(hub), lambda done, total: told.append((done, total)))
        assert told[0] == (0, len(DATA))
        assert told[-1] == (len(DATA), len(DATA))
        assert told == sorted(told)

    def test_a_connection_that_is_cut_is_taken_up_where_it_broke(
        self, hub: Hub, weights: Weights, slept: list[float]
    ) -> None:
        hub.script = [cut_after(2_000_000), cut_after(100_000)]
        assert weights.pull(entry(hub)).path.read_bytes() == DATA
        assert hub.ranges == [None, "bytes=2000000-", "bytes=2100000-"]
        assert slept == [1.0, 1.0]  # each of them brought something

    def test_a_later_pull_goes_on_with_what_an_earlier_one_left(self, hub: Hub, weights: Weights) -> None:
        class Enough(Exception):
            pass

        def stop(done: int, total: int | None) -> None:
            if done:
                raise Enough

        with pytest.raises(Enough):
            weights.pull(entry(hub), stop)
        assert weights.state(entry(hub)) is Held.PARTIAL
        started: list[int] = []
        weights.pull(entry(hub), lambda done, total: started.append(done))
        assert started[0] > 0
        assert hub.ranges[1] == f"bytes={started[0]}-"

    def test_a_server_that_cannot_resume_starts_again(self, hub: Hub, weights: Weights) -> None:
        def from_the_start(hub: Hub, handler: BaseHTTPRequestHandler) -> None:
            del handler.headers["Range"]
            answer(hub, handler)

        hub.script = [cut_after(1_000_000), from_the_start]
        assert weights.pull(entry(hub)).path.read_bytes() == DATA

    def test_another_version_of_the_file_is_not_glued_to_the_first(self, hub: Hub, weights: Weights) -> None:
        """The server's ETag changed between two attempts, so it answers the conditional range with everything."""

        def old_version(hub: Hub, handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("ETag", '"v0"')
            handler.send_header("Content-Length", str(len(DATA)))
            handler.end_headers()
            handler.wfile.write(bytes(1_000_000))
            handler.close_connection = True

        hub.script = [old_version]
        assert weights.pull(entry(hub)).path.read_bytes() == DATA

    def test_a_partial_file_that_is_whole_already_is_taken(self, hub: Hub, weights: Weights) -> None:
        weights.directory.mkdir()
        (weights.directory / f"{NAME}.part").write_bytes(DATA)
        assert weights.pull(entry(hub)).path.read_bytes() == DATA

    def test_a_partial_file_that_is_rubbish_is_thrown_away(self, hub: Hub, weights: Weights) -> None:
        weights.directory.mkdir()
        (weights.directory / f"{NAME}.part").write_bytes(bytes(len(DATA) + 5))
        assert weights.pull(entry(hub)).path.read_bytes() == DATA

    def test_an_overloaded_server_is_asked_again(self, hub: Hub, weights: Weights, slept: list[float]) -> None:
        hub.script = [says(503), says(429)]
        weights.pull(entry(hub))
        assert slept == [1.0, 2.0]

    def test_redirects_are_followed(self, hub: Hub, weights: Weights) -> None:
        hub.script = [says(302, Location=f"{hub.url}/elsewhere?signed=yes")]
        weights.pull(entry(hub))
        assert hub.paths == [f"/files/{NAME}", "/elsewhere?signed=yes"]

    def test_a_model_that_is_here_is_not_fetched_again(self, hub: Hub, weights: Weights) -> None:
        weights.pull(entry(hub))
        assert weights.ensure(entry(hub)).digest == SHA
        assert len(hub.paths) == 1

    def test_pulling_says_so_when_another_process_is_at_it(self, hub: Hub, weights: Weights) -> None:
        def meanwhile(done: int, total: int | None) -> None:
            if done:
                with pytest.raises(WeightsError, match="Another process"):
                    weights.pull(entry(hub))

        weights.pull(entry(hub), meanwhile)


class TestBadDownloads:
    def test_wrong_bytes_are_set_aside_and_never_loaded(self, hub: Hub, weights: Weights) -> None:
        hub.data = bytes(len(DATA))
        with pytest.raises(WeightsError, match="should be"):
            weights.pull(entry(hub))
        assert names(weights) == {f"{NAME}.bad"}
        assert weights.state(entry(hub)) is Held.BAD
        with pytest.raises(WeightsError, match="tokenplace models pull"):
            weights.locate(entry(hub))

    def test_a_good_download_clears_the_bad_one_away(self, hub: Hub, weights: Weights) -> None:
        hub.data = bytes(len(DATA))
        with pytest.raises(WeightsError):
            weights.pull(entry(hub))
        hub.data = DATA
        weights.pull(entry(hub))
        assert names(weights) == {NAME, f"{NAME}.verified"}

    def test_another_size_than_the_catalogues_is_not_even_fetched(self, hub: Hub, weights: Weights) -> None:
        with pytest.raises(WeightsError, match=f"{len(DATA)} bytes, the catalogue says 5"):
            weights.pull(entry(hub, size=5))
        assert names(weights) == set()

    def test_a_server_that_announces_more_than_it_has_is_caught_by_the_digest(self, hub: Hub, weights: Weights) -> None:
        """The first attempt ends early; asking for the rest shows that there is none, the digest that none lacks."""
        hub.script = [announces(len(DATA) + 1000)]
        assert weights.pull(entry(hub, size=None)).path.read_bytes() == DATA

    def test_a_server_that_announces_less_than_it_has_delivers_a_bad_file(self, hub: Hub, weights: Weights) -> None:
        hub.script = [announces(len(DATA) - 1000)]
        with pytest.raises(WeightsError, match="set aside"):
            weights.pull(entry(hub, size=None))

    def test_an_endless_body_is_stopped_at_the_size_that_is_known(self, hub: Hub, weights: Weights) -> None:
        def endless(hub: Hub, handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.end_headers()
            try:
                while True:
                    handler.wfile.write(bytes(1024 * 1024))
            except ConnectionError:
                handler.close_connection = True

        hub.script = [endless]
        with pytest.raises(WeightsError, match="more than"):
            weights.pull(entry(hub))

    def test_it_gives_up_when_nothing_new_comes_and_keeps_what_came(
        self, hub: Hub, weights: Weights, slept: list[float]
    ) -> None:
        hub.script = [cut_after(1_000_000), *[cut_after(0)] * 9]
        with pytest.raises(WeightsError, match="pull again to go on"):
            weights.pull(entry(hub))
        assert (weights.directory / f"{NAME}.part").stat().st_size == 1_000_000
        assert slept == [1.0, 2.0, 4.0, 8.0]

    def test_a_server_that_is_not_there_is_told(self, tmp_path: Path, hub: Hub, slept: list[float]) -> None:
        nowhere = replace(entry(hub), source=UrlSource(f"http://127.0.0.1:{free_port()}/m.gguf"))
        with pytest.raises(WeightsError, match="ConnectError"):
            Weights(tmp_path, sleep=slept.append).pull(nowhere)

    @pytest.mark.parametrize(("status", "hint"), [(401, "log in"), (404, "not there any more"), (418, "418")])
    def test_a_refusal_says_what_to_do(self, hub: Hub, weights: Weights, status: int, hint: str) -> None:
        hub.script = [says(status)]
        with pytest.raises(WeightsError, match=hint):
            weights.pull(entry(hub))

    def test_a_server_that_stops_in_the_middle_without_hanging_up_is_cut_off_and_asked_for_the_rest(
        self, tmp_path: Path, hub: Hub
    ) -> None:
        go_on = threading.Event()

        def stall(hub: Hub, handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("ETag", '"v1"')
            handler.send_header("Content-Length", str(len(DATA)))
            handler.end_headers()
            handler.wfile.write(DATA[:1_000_000])
            go_on.wait(20)
            handler.close_connection = True

        hub.script = [stall]
        weights = Weights(tmp_path / "models", sleep=lambda _: go_on.set(), patience=1.0)
        assert weights.pull(entry(hub)).path.read_bytes() == DATA
        assert hub.ranges[:2] == [None, "bytes=1000000-"]

    def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(self, hub: Hub, weights: Weights) -> None:
        hub.script = [announces(10**18)]
        with pytest.raises(WeightsError, match="are free"):
            weights.pull(entry(hub, size=None))
        assert names(weights) == set()

    def test_a_directory_that_cannot_be_made_is_told(self, tmp_path: Path, hub: Hub) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(WeightsError, match="could not be written"):
            Weights(tmp_path / "file" / "models").pull(entry(hub))

    def test_a_way_that_leaves_encryption_is_not_taken(self) -> None:
        assert _loses_encryption(["https", "http"])
        assert _loses_encryption(["https", "http", "https"])
        assert not _loses_encryption(["https", "https"])
        assert not _loses_encryption(["http", "http"])


class TestTheHub:
    def hub_redirect(self, hub: Hub, digest: str) -> None:
        hub.script = [says(302, Location=f"{hub.url}/cdn/blob", X_Linked_Etag=f'"{digest}"', X_Linked_Size="5")]

    def test_the_address_names_owner_repository_revision_and_file(self, hub: Hub, weights: Weights) -> None:
        weights.pull(on_the_hub(sha256=SHA))
        assert hub.paths == [f"/owner/repo-GGUF/resolve/abc/{NAME}"]

    def test_without_a_known_digest_the_announced_one_is_held_against_the_file(
        self, hub: Hub, weights: Weights
    ) -> None:
        self.hub_redirect(hub, SHA)
        got = weights.pull(on_the_hub())
        assert (got.digest, got.against) == (SHA, Against.DOWNLOAD)
        assert weights.verify(got.path, on_the_hub(), fresh=True).against is Against.DOWNLOAD

    def test_a_file_that_is_not_what_was_announced_is_set_aside(self, hub: Hub, weights: Weights) -> None:
        self.hub_redirect(hub, "0" * 64)
        with pytest.raises(WeightsError, match="set aside"):
            weights.pull(on_the_hub())

    def test_the_catalogues_digest_counts_more_than_the_hubs(self, hub: Hub, weights: Weights) -> None:
        self.hub_redirect(hub, "0" * 64)
        assert weights.pull(on_the_hub(sha256=SHA)).against is Against.CATALOGUE

    def test_a_file_whose_digest_nobody_knows_is_not_taken(self, hub: Hub, weights: Weights) -> None:
        with pytest.raises(WeightsError, match="Nobody says"):
            weights.pull(on_the_hub())
        assert names(weights) == {f"{NAME}.bad"}

    def test_a_file_in_a_folder_of_a_repository_keeps_its_place_there(self, hub: Hub, weights: Weights) -> None:
        self.hub_redirect(hub, SHA)
        wanted = model_named(Catalogue.load(), "hf:owner/repo-GGUF/Q4/m-00.gguf@v1.0")
        got = weights.pull(wanted)
        assert hub.paths[0] == "/owner/repo-GGUF/resolve/v1.0/Q4/m-00.gguf"
        assert got.path.name == "owner--repo-GGUF--v1.0--Q4--m-00.gguf"
        assert weights.others(set()) == [("hf:owner/repo-GGUF/Q4/m-00.gguf@v1.0", len(DATA))]

    def test_the_token_goes_to_the_hub_and_to_nobody_it_leads_to(self, hub: Hub, weights: Weights) -> None:
        storage = Hub()
        try:
            hub.script = [says(302, Location=f"{storage.url}/blob".replace("127.0.0.1", "localhost"))]
            weights.pull(on_the_hub(sha256=SHA))
            assert (hub.tokens, storage.tokens) == (["Bearer hf_secret"], [None])
        finally:
            storage.close()

    @pytest.mark.parametrize(
        ("status", "code", "hint"),
        [
            (403, "GatedRepo", "terms accepted.*HF_TOKEN"),
            (404, "EntryNotFound", "no such file"),
            (404, "RevisionNotFound", "no such revision"),
            (401, "RepoNotFound", "HF_TOKEN does not open it"),
            (401, "", "HF_TOKEN"),
        ],
    )
    def test_what_the_hub_refuses_is_told_with_what_to_do(
        self, hub: Hub, weights: Weights, status: int, code: str, hint: str
    ) -> None:
        hub.script = [says(status, X_Error_Code=code)]
        with pytest.raises(WeightsError, match=hint) as told:
            weights.pull(on_the_hub())
        assert "hf_secret" not in str(told.value)

    def in_the_cache(self, tmp_path: Path, *, revision: str = "abc", data: bytes = DATA, digest: str = SHA) -> Path:
        """A file as other programs leave it there."""
        repo = tmp_path / "hf" / "models--owner--repo-GGUF"
        blob = repo / "blobs" / digest
        blob.parent.mkdir(parents=True)
        blob.write_bytes(data)
        shown = repo / "snapshots" / revision / NAME
        shown.parent.mkdir(parents=True)
        shown.symlink_to(blob)
        return shown

    def test_what_another_program_brought_into_the_hub_s_cache_is_used_where_it_lies(
        self, tmp_path: Path, hub: Hub, weights: Weights
    ) -> None:
        shown = self.in_the_cache(tmp_path)
        assert weights.ensure(on_the_hub()) == Verified(shown, SHA, Against.DOWNLOAD)
        assert hub.paths == []

    def test_a_cached_file_of_another_revision_counts_when_its_digest_is_the_catalogue_s(
        self, tmp_path: Path, hub: Hub, weights: Weights
    ) -> None:
        self.in_the_cache(tmp_path, revision="def")
        assert weights.state(on_the_hub()) is Held.ABSENT
        assert weights.ensure(on_the_hub(sha256=SHA)).against is Against.CATALOGUE

    def test_a_cached_file_that_is_not_what_it_is_called_is_not_loaded(
        self, tmp_path: Path, hub: Hub, weights: Weights
    ) -> None:
        self.in_the_cache(tmp_path, data=DATA[:-1] + b"?")
        with pytest.raises(WeightsError, match="It was not loaded"):
            weights.ensure(on_the_hub())

    def test_a_cached_file_is_not_ours_to_remove(self, tmp_path: Path, weights: Weights) -> None:
        shown = self.in_the_cache(tmp_path)
        with pytest.raises(WeightsError, match="another program"):
            weights.remove(on_the_hub())
        assert shown.exists()


class TestADigestByHand:
    def test_it_decides_where_nobody_else_says(self, hub: Hub, weights: Weights) -> None:
        got = weights.pull(entry(hub, sha256=None), sha256=f"SHA256:{SHA.upper()}")
        assert (got.digest, got.against) == (SHA, Against.GIVEN)

    def test_another_file_is_set_aside(self, hub: Hub, weights: Weights) -> None:
        with pytest.raises(WeightsError, match="set aside"):
            weights.pull(entry(hub, sha256=None), sha256="0" * 64)

    def test_it_cannot_speak_against_the_catalogue(self, hub: Hub, weights: Weights) -> None:
        with pytest.raises(WeightsError, match="The catalogue says"):
            weights.pull(entry(hub), sha256="0" * 64)
        assert hub.paths == []

    def test_what_is_none_is_said(self, hub: Hub, weights: Weights) -> None:
        with pytest.raises(WeightsError, match="64 characters"):
            weights.pull(entry(hub), sha256="abc")


class TestRemoving:
    def test_everything_of_the_model_goes(self, hub: Hub, weights: Weights) -> None:
        weights.pull(entry(hub))
        (weights.directory / f"{NAME}.part").write_bytes(b"begun again")
        assert weights.remove(entry(hub)) > len(DATA)
        assert names(weights) == set()
        assert weights.state(entry(hub)) is Held.ABSENT

    def test_nothing_to_remove_is_said(self, hub: Hub, weights: Weights) -> None:
        with pytest.raises(WeightsError, match="is not in"):
            weights.remove(entry(hub))


class TestNames:
    catalogue = Catalogue.load()

    def test_an_id_of_the_catalogue_is_itself(self) -> None:
        assert model_named(self.catalogue, BASE.id) == BASE

    def test_two_repositories_with_a_file_of_one_name_do_not_meet(self) -> None:
        one, two = (model_named(self.catalogue, f"hf:{owner}/repo/m.gguf") for owner in ("one", "two"))
        assert one.file.name != two.file.name
        assert one.id == two.id == "m"

    @pytest.mark.parametrize(
        "name",
        [
            "hf:owner/repo",
            "hf:owner//m.gguf",
            "hf:owner/repo/readme.md",
            "hf:owner/repo/../../m.gguf",
            "https://models.example/m.bin",
            "http://models.example/m.gguf",
            "https://[models/m.gguf",
        ],
    )
    def test_what_names_no_model_file_is_told_apart(self, name: str) -> None:
        with pytest.raises(WeightsError):
            model_named(self.catalogue, name)

    def test_no_name_leads_out_of_the_models_directory(self) -> None:
        for name in ("https://models.example/%2e%2e%2fm.gguf", "https://models.example/..%2F..%2Fm.gguf"):
            with contextlib.suppress(WeightsError):
                assert "/" not in model_named(self.catalogue, name).file.name


class TestFindingAndChecking:
    def here(self, weights: Weights, data: bytes = DATA) -> Path:
        weights.directory.mkdir(parents=True, exist_ok=True)
        path = weights.directory / NAME
        path.write_bytes(data)
        return path

    def test_nothing_here_says_how_to_get_it(self, hub: Hub, weights: Weights) -> None:
        assert weights.state(entry(hub)) is Held.ABSENT
        with pytest.raises(WeightsError, match=f"tokenplace models pull {BASE.id}"):
            weights.locate(entry(hub))

    def test_a_file_put_there_by_hand_is_found(self, hub: Hub, weights: Weights) -> None:
        path = self.here(weights)
        assert weights.locate(entry(hub)) == path
        assert weights.state(entry(hub)) is Held.HERE

    def test_a_file_of_the_wrong_size_is_not_taken_for_it(self, hub: Hub, weights: Weights) -> None:
        self.here(weights, DATA[:-1])
        with pytest.raises(WeightsError, match="Remove it"):
            weights.locate(entry(hub))
        assert weights.state(entry(hub)) is Held.BAD

    def test_a_wrong_file_of_the_right_size_does_not_pass(self, hub: Hub, weights: Weights) -> None:
        path = self.here(weights, bytes(len(DATA)))
        with pytest.raises(WeightsError, match="It was not loaded"):
            weights.verify(path, entry(hub))

    def test_what_was_checked_is_not_hashed_again_while_nothing_changed(self, hub: Hub, weights: Weights) -> None:
        """Shown by a change that keeps size and time: only a fresh check finds it."""
        path = self.here(weights)
        weights.verify(path, entry(hub))
        before = path.stat()
        path.write_bytes(bytes(len(DATA)))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert weights.verify(path, entry(hub)).digest == SHA
        with pytest.raises(WeightsError):
            weights.verify(path, entry(hub), fresh=True)

    def test_a_change_is_found_at_the_next_start(self, hub: Hub, weights: Weights) -> None:
        path = self.here(weights)
        weights.verify(path, entry(hub))
        before = path.stat()
        path.write_bytes(bytes(len(DATA)))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        with pytest.raises(WeightsError):
            weights.verify(path, entry(hub))

    def test_a_note_that_was_damaged_is_as_good_as_none(self, hub: Hub, weights: Weights) -> None:
        path = self.here(weights)
        for note in ("", "{}", "[]", '{"against": "hearsay"}', "\xff"):
            (weights.directory / f"{NAME}.verified").write_text(note)
            assert weights.verify(path, entry(hub)).digest == SHA

    def test_a_note_about_another_file_of_that_name_does_not_count(self, hub: Hub, weights: Weights) -> None:
        path = self.here(weights)
        weights.verify(path, entry(hub))
        other = weights.directory.parent / NAME
        other.write_bytes(bytes(len(DATA)))
        os.utime(other, ns=(0, path.stat().st_mtime_ns))
        with pytest.raises(WeightsError):
            weights.verify(other, entry(hub))

    def test_a_file_of_unknown_digest_must_stay_what_it_was_at_first_sight(self, hub: Hub, weights: Weights) -> None:
        path = self.here(weights)
        unknown = entry(hub, sha256=None, size=None)
        assert weights.verify(path, unknown).against is Against.FIRST_SIGHT
        path.write_bytes(b"something else")
        with pytest.raises(WeightsError):
            weights.verify(path, unknown)

    def test_an_adapter_without_weights_has_none_to_find(self, weights: Weights) -> None:
        [adapter] = Catalogue.load().adapters
        with pytest.raises(WeightsError, match="llama-3-8b-instruct"):
            weights.locate(adapter)

    def test_an_adapter_with_weights_is_fetched_like_a_model(self, hub: Hub, weights: Weights) -> None:
        [charter] = Catalogue.load().adapters
        lora: AdapterEntry = replace(charter, file=ModelFile(NAME, None, SHA), source=UrlSource(f"{hub.url}/lora"))
        assert weights.ensure(lora).digest == SHA


class TestTheModelsDirectory:
    @pytest.mark.parametrize(
        ("said", "read"), [("/data/models", Path("/data/models")), ("~/m", Path.home() / "m"), (" /m ", Path("/m"))]
    )
    def test_it_is_where_the_variable_says(self, said: str, read: Path) -> None:
        assert NodeSettings.model_validate({"TOKEN_PLACE_MODELS_DIR": said}).weights_dir == read

    def test_else_it_is_in_the_users_data_directory(self) -> None:
        settings = NodeSettings.model_validate({"TOKEN_PLACE_MODELS_DIR": " "})
        assert settings.weights_dir.parts[-2:] == ("token.place", "models")


class TestWheels:
    embedded = Catalogue.load().models[0]

    def test_an_installed_package_is_found_without_being_imported(
        self, tmp_path: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = tmp_path / "site" / "explosive_weights"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise SystemExit('imported')")
        (package / NAME).write_bytes(DATA)
        monkeypatch.syspath_prepend(tmp_path / "site")
        source = WheelSource("explosive-weights", "1", "explosive_weights", f"explosive_weights/{NAME}", "0" * 64)
        assert weights.locate(replace(BASE, file=ModelFile(NAME, len(DATA), SHA), source=source)) == package / NAME
        assert "explosive_weights" not in sys.modules

    @pytest.mark.model
    def test_the_embedded_model_comes_through_the_package_client(self, weights: Weights) -> None:
        told: list[tuple[int, int | None]] = []
        got = weights.pull(self.embedded, lambda done, total: told.append((done, total)))
        assert got.digest == self.embedded.file.sha256
        assert told[-1] == (98_362_432, 98_362_432)
        assert names(weights) == {self.embedded.file.name, f"{self.embedded.file.name}.verified"}

    @pytest.mark.model
    def test_a_wheel_of_another_digest_is_refused_by_the_package_client(self, weights: Weights) -> None:
        assert isinstance(self.embedded.source, WheelSource)
        other = replace(self.embedded, source=replace(self.embedded.source, sha256="0" * 64))
        with pytest.raises(WeightsError, match="could not fetch"):
            weights.pull(other)
        assert names(weights) == set()
