"""The files of a release: made twice the same, signed, checked by us and by minisign; the relay in one file at work."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stage import PATIENCE, Program, free_port, get_json, staged
from tokenplace.cli.main import app
from tokenplace.sealing.minisign import SecretKey

ROOT = Path(__file__).resolve().parents[2]
CHEAP = (32768, 1 << 20)
MINISIGN = shutil.which("minisign")
with_minisign = pytest.mark.skipif(
    MINISIGN is None, reason="minisign is not here (Debian, Ubuntu: apt install minisign)"
)


def tokenplace(*arguments: str | Path) -> tuple[int, list[str]]:
    """The status and every line that was said, on whichever stream."""
    ran = CliRunner().invoke(app, [str(each) for each in arguments])
    return ran.exit_code, ran.output.splitlines()


class Maintainer:
    """Somebody with a key and a file."""

    def __init__(self, folder: Path) -> None:
        self.key, self.public = folder / "key.sec", folder / "key.pub"
        made = SecretKey.generate()
        self.key.write_text(made.to_text("right", CHEAP))
        self.public.write_text(made.public.text)
        self.password = folder / "password"
        self.password.write_text("right\n")
        self.file = folder / "artifact.bin"
        self.file.write_bytes(os.urandom(3 << 20))
        self.signature = folder / "artifact.bin.minisig"

    def sign(self, *options: str) -> None:
        told = tokenplace("release", "sign", self.file, "--key", self.key, "--password-file", self.password, *options)
        assert told[0] == 0, told


@pytest.fixture
def maintainer(tmp_path: Path) -> Maintainer:
    return Maintainer(tmp_path)


# -- one line and one status ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True])
def test_a_good_file_is_status_0_and_one_line(maintainer: Maintainer, plain: bool) -> None:
    maintainer.sign(*(["--plain"] if plain else []))
    status, lines = tokenplace("verify", maintainer.file, "--public-key", maintainer.public)
    assert (status, len(lines)) == (0, 1)
    assert lines[0].startswith(f"{maintainer.file}: good")


def test_the_key_can_be_given_as_text_and_the_signature_by_name(maintainer: Maintainer) -> None:
    maintainer.sign()
    elsewhere = maintainer.signature.rename(maintainer.signature.with_name("elsewhere"))
    key = maintainer.public.read_text().splitlines()[1]
    assert tokenplace("verify", maintainer.file, elsewhere, "--public-key", key)[0] == 0


@pytest.mark.parametrize("plain", [False, True])
def test_an_altered_file_is_status_1_and_one_line(maintainer: Maintainer, plain: bool) -> None:
    maintainer.sign(*(["--plain"] if plain else []))
    with maintainer.file.open("r+b") as file:
        file.write(b"x")
    status, lines = tokenplace("verify", maintainer.file, "--public-key", maintainer.public)
    assert (status, len(lines)) == (1, 1)
    assert ": BAD. " in lines[0]


def test_anothers_signature_is_status_1(maintainer: Maintainer) -> None:
    maintainer.sign()
    other = maintainer.public.with_name("other.pub")
    other.write_text(SecretKey.generate().public.text)
    status, lines = tokenplace("verify", maintainer.file, "--public-key", other)
    assert (status, len(lines)) == (1, 1)
    assert "Another key signed it" in lines[0]


@pytest.mark.parametrize("missing", ["file", "signature", "public", "no key at all"])
def test_what_could_not_be_checked_is_status_2_and_one_line(maintainer: Maintainer, missing: str) -> None:
    maintainer.sign()
    command: list[str | Path] = ["verify", maintainer.file, maintainer.signature]
    if missing == "no key at all":
        said = "name one with --public-key"
    else:
        path: Path = getattr(maintainer, missing)
        path.unlink()
        command += ["--public-key", maintainer.public]
        said = f"{path} cannot be read (No such file or directory)"
    status, lines = tokenplace(*command)
    assert (status, len(lines)) == (2, 1)
    assert "not checked" in lines[0]
    assert said in lines[0]


@pytest.mark.parametrize("which", ["signature", "public"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"A" * 100_000, b"untrusted comment: x\n"])
def test_rubbish_is_status_2_and_one_line(maintainer: Maintainer, which: str, content: bytes) -> None:
    maintainer.sign()
    getattr(maintainer, which).write_bytes(content)
    status, lines = tokenplace("verify", maintainer.file, "--public-key", maintainer.public)
    assert (status, len(lines)) == (2, 1)


def test_a_directory_is_status_2(maintainer: Maintainer) -> None:
    maintainer.sign()
    told = tokenplace("verify", maintainer.file.parent, maintainer.signature, "--public-key", maintainer.public)
    assert (told[0], len(told[1])) == (2, 1)


# -- keys ----------------------------------------------------------------------------------------------------------


def test_a_key_is_made_for_its_owner_only_and_never_overwritten(tmp_path: Path) -> None:
    command = ("release", "keygen", "--unencrypted", "--key", tmp_path / "k", "--public-key", tmp_path / "k.pub")
    status, lines = tokenplace(*command)
    assert status == 0
    assert "lies open" in " ".join(lines)
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    before = (tmp_path / "k").read_text()
    assert tokenplace(*command)[0] == 1
    assert (tmp_path / "k").read_text() == before


def test_a_wrong_password_signs_nothing_and_is_not_repeated(maintainer: Maintainer) -> None:
    maintainer.password.write_text("wrong-marker\n")
    status, lines = tokenplace(
        "release", "sign", maintainer.file, "--key", maintainer.key, "--password-file", maintainer.password
    )
    assert status == 1
    assert "The password is wrong" in " ".join(lines)
    assert "wrong-marker" not in " ".join(lines)
    assert not maintainer.signature.exists()


def test_without_a_password_file_the_terminal_is_asked(maintainer: Maintainer) -> None:
    command = ["release", "sign", str(maintainer.file), "--key", str(maintainer.key)]
    ran = CliRunner().invoke(app, command, input="right\n")
    assert ran.exit_code == 0, ran.output
    assert tokenplace("verify", maintainer.file, "--public-key", maintainer.public)[0] == 0


# -- the stock tool ------------------------------------------------------------------------------------------------


def stock(*arguments: str | Path, said: str = "") -> int:
    assert MINISIGN is not None
    return subprocess.run(
        [MINISIGN, *map(str, arguments)], input=said, text=True, capture_output=True, timeout=60, check=False
    ).returncode


@with_minisign
def test_minisign_verifies_what_we_sign(maintainer: Maintainer) -> None:
    maintainer.sign()
    assert stock("-Vm", maintainer.file, "-p", maintainer.public) == 0
    maintainer.file.write_bytes(b"another")
    assert stock("-Vm", maintainer.file, "-p", maintainer.public) != 0


@with_minisign
@pytest.mark.parametrize("legacy", [False, True])
def test_we_verify_what_minisign_signs(tmp_path: Path, legacy: bool) -> None:
    file, public, key = tmp_path / "file", tmp_path / "m.pub", tmp_path / "m.key"
    file.write_bytes(b"a file")
    assert stock("-G", "-W", "-p", public, "-s", key) == 0
    assert stock("-S", "-s", key, "-m", file, "-t", "hello there", *(["-l"] if legacy else [])) == 0
    status, lines = tokenplace("verify", file, "--public-key", public)
    assert status == 0
    assert lines == [f"{file}: good, signature {file}.minisig. Signed with it: hello there"]
    file.write_bytes(b"another file")
    assert tokenplace("verify", file, "--public-key", public)[0] == 1


@with_minisign
def test_minisign_signs_with_our_key_under_its_password(maintainer: Maintainer) -> None:
    assert stock("-S", "-s", maintainer.key, "-m", maintainer.file, said="right\n") == 0
    assert tokenplace("verify", maintainer.file, "--public-key", maintainer.public)[0] == 0


@with_minisign
def test_we_sign_with_minisigns_key(maintainer: Maintainer, tmp_path: Path) -> None:
    assert stock("-G", "-W", "-p", tmp_path / "m.pub", "-s", tmp_path / "m.key") == 0
    assert tokenplace("release", "sign", maintainer.file, "--key", tmp_path / "m.key")[0] == 0
    assert stock("-Vm", maintainer.file, "-p", tmp_path / "m.pub") == 0


# -- the files of a release ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as it is now, so that nothing changes in it while it is built twice."""
    made: Path = tmp_path_factory.mktemp("source")
    copied(ROOT, made / "tree")
    return made / "tree"


def copied(tree: Path, target: Path) -> None:
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "node_modules", "dist", "build", "clients")
    shutil.copytree(tree, target, ignore=lambda folder, names: {*unwanted(folder, names)} - {".gitignore"})


@pytest.fixture(scope="module")
def release(source: Path) -> Path:
    build(source, source.parent / "dist")
    return source.parent / "dist"


def build(tree: Path, target: Path, mask: int = 0o022) -> None:
    command = [sys.executable, str(tree / "scripts" / "build_release.py"), str(target)]
    subprocess.run(command, cwd=tree, check=True, capture_output=True, umask=mask)


@pytest.mark.heavy
def test_a_release_built_twice_is_the_same_to_the_byte(source: Path, release: Path, tmp_path: Path) -> None:
    """Elsewhere, and under another umask."""
    copied(source, tmp_path / "another-name")
    build(tmp_path / "another-name", tmp_path / "again", mask=0o077)
    first, second = (
        {file.name: file.read_bytes() for file in each.iterdir()} for each in (release, tmp_path / "again")
    )
    assert [name for name in first if first[name] != second.get(name)] == []
    assert set(first) == set(second)


def test_the_checksums_cover_every_file_and_hold(release: Path) -> None:
    rows = {line.split("  ")[1]: line.split("  ")[0] for line in (release / "checksums.txt").read_text().splitlines()}
    assert set(rows) == {file.name for file in release.iterdir()} - {"checksums.txt"}
    assert {name.rpartition(".")[2] for name in rows} == {"whl", "gz", "zip", "pyz", "txt"}
    for name, digest in rows.items():
        assert hashlib.sha256((release / name).read_bytes()).hexdigest() == digest


def test_signatures_are_not_in_the_checksums_that_they_sign(release: Path, maintainer: Maintainer) -> None:
    before = (release / "checksums.txt").read_bytes()
    maintainer.file = release / "checksums.txt"
    maintainer.sign()
    try:
        assert tokenplace("release", "checksums", release)[0] == 0
        assert (release / "checksums.txt").read_bytes() == before
        assert tokenplace("verify", release / "checksums.txt", "--public-key", maintainer.public)[0] == 0
    finally:
        (release / "checksums.txt.minisig").unlink()


# -- the relay in one file -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has never heard of token.place."""
    made: Path = tmp_path_factory.mktemp("bare")
    venv.create(made / "venv", with_pip=False)
    python = made / "venv" / "bin" / "python"
    probe = subprocess.run([python, "-c", "import tokenplace"], capture_output=True, text=True, check=False)
    assert "No module named 'tokenplace'" in probe.stderr
    return python


def clean(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "SHIV_ROOT": str(folder / "shiv"), "PYTHONUNBUFFERED": "1"}


def test_the_relay_in_one_file_serves_a_chat(release: Path, bare_python: Path, tmp_path: Path) -> None:
    port = free_port()
    with staged(tmp_path) as stage:
        command = [str(bare_python), str(release / "tokenplace-relay.pyz"), "--port", str(port)]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=clean(tmp_path), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        relay = Program("pyz", process, url=f"http://127.0.0.1:{port}")
        stage.programs.append(relay)
        stage.up(relay, lambda: get_json(f"{relay.url}/healthz"))
        health = get_json(f"{relay.url}/healthz")
        stage.node(relay)
        chat = stage.start("chat", ["chat", "--relay", relay.url, "-m", "Hello"])
        assert chat.process.wait(PATIENCE) == 0
        chat.finish()
        assert chat.text == "echo: Hello\n"
    [listed] = [
        line.split()[0]
        for line in (release / "builds.txt").read_text().splitlines()
        if line.endswith("tokenplace-relay.pyz")
    ]
    assert health["build"] == listed, "a running relay can be found in the release's list"


def test_the_relay_in_one_file_holds_nothing_that_opens_content(release: Path) -> None:
    names = zipfile.ZipFile(release / "tokenplace-relay.pyz").namelist()
    tops = {name.split("/")[1] for name in names if name.startswith("site-packages/")}
    rooms = {name.split("/")[2] for name in names if name.startswith("site-packages/tokenplace/")}
    assert "relay" in rooms
    assert tops.isdisjoint({"cryptography", "openai", "xllamacpp", "fastapi"})
    assert rooms.isdisjoint({"sealing", "openai", "client", "gateway", "node"})
