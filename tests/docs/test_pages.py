"""Pages say what the code does: tables, links, codes, variables, options."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from docs import generate
from docs.pages import ROOT, blocks, every_page, first_cells, read, without_code
from tokenplace.cli.main import app
from tokenplace.relay.tickets import INTERRUPTED
from tokenplace.wire import limits, request, routes, stream
from tokenplace.wire.card import HELLO_PREFIX, SIGNING_PREFIX
from tokenplace.wire.request import INFO_PREFIX, Kem

SOURCE = ROOT / "src" / "tokenplace"
LINK = re.compile(r"\]\(([^)\s]+)\)")
ERRORS, PROTOCOL = "docs/reference/errors.md", "docs/reference/protocol.md"


# -- tables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", generate.pages(), ids=lambda page: page.name)
def test_the_tables_of_a_page_are_what_the_code_says(page: Path) -> None:
    text = page.read_text()
    assert text == generate.filled(text), "run: python tests/docs/generate.py"


def test_every_table_stands_in_some_page() -> None:
    shown = {found[2] for page in generate.pages() for found in generate.MARKED.finditer(page.read_text())}
    assert shown == set(generate.TABLES)


def test_a_wrong_table_would_be_noticed() -> None:
    page = "<!-- from the code: jobs -->\n\n| queued |\n\n<!-- end -->"
    assert "**severed**" in generate.filled(page)


# -- links and names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", every_page(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(without_code(page.read_text())):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", every_page(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_name_is_written_in_lower_case(page: Path) -> None:
    assert not re.search(r"Token\.[Pp]lace|TOKEN\.PLACE", page.read_text())


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        for target in LINK.findall(without_code(page.read_text())):
            path = (page.parent / target.partition("#")[0]).resolve()
            if "://" not in target and path.exists():
                waiting += sorted(path.glob("*.md")) if path.is_dir() else [path]
    assert set((ROOT / "docs").rglob("*.md")) <= seen


def test_the_page_for_language_models_names_every_page_once() -> None:
    named = [target.partition("#")[0] for target in LINK.findall(read("llms.txt"))]
    pages = {str(page.relative_to(ROOT)) for page in every_page()} - {"llms.txt", "CLAUDE.md", "CHANGELOG.md"}
    decisions = {page for page in pages if re.match(r"docs/adr/\d", page)}
    assert len(named) == len(set(named))
    assert set(named) == pages - decisions


def test_every_decision_is_listed_under_a_number_of_its_own() -> None:
    decisions = sorted(path.name for path in (ROOT / "docs/adr").glob("0*.md"))
    assert sorted(LINK.findall(read("docs/adr/README.md"))) == decisions
    numbers = [name[:4] for name in decisions]
    assert len(numbers) == len(set(numbers))


def test_notes_of_changes_have_endings_that_are_not_dropped() -> None:
    import tomllib

    kinds = {kind["directory"] for kind in tomllib.loads(read("pyproject.toml"))["tool"]["towncrier"]["type"]}
    notes = [path.name for path in (ROOT / "changelog.d").iterdir() if not path.name.startswith((".", "_"))]
    assert {name.split(".")[-2] for name in notes} <= kinds


def test_the_readme_is_short_and_names_the_two_commands() -> None:
    text = read("README.md")
    assert len(text.splitlines()) <= 100
    assert "make run" in text
    assert "make test" in text


# -- errors --------------------------------------------------------------------------------------------------------


def constants() -> dict[str, str]:
    """Strings that have a name in capitals at the top of some module."""
    named = re.compile(r'^([A-Z_]+)(?:: Final)? = "(\w+)"$', re.MULTILINE)
    return {name: text for file in SOURCE.rglob("*.py") for name, text in named.findall(file.read_text())}


CONSTANTS = constants()


def words(node: ast.expr) -> Iterator[str]:
    """The strings that an expression may give, as far as they are written down."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.Name(id=name) if name in CONSTANTS:
            yield CONSTANTS[name]
        case ast.IfExp(body=yes, orelse=no):
            yield from words(yes)
            yield from words(no)
        case ast.BoolOp(values=values):
            for value in values:
                yield from words(value)
        case ast.Call(func=ast.Name(id="str"), args=[inner]):
            yield from words(inner)


def named_in(tree: ast.Module) -> dict[str, str]:
    """The strings that a module gives names to."""
    return {
        name.id: text
        for node in tree.body
        if isinstance(node, ast.Assign)
        for name, text in zip(node.targets, words(node.value), strict=False)
        if isinstance(name, ast.Name)
    }


def codes_in(tree: ast.Module) -> Iterator[str]:
    """Codes that a module gives to errors and reasons."""
    named = named_in(tree)
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg="code", value=ast.Name(id=constant)) if constant in named:
                yield named[constant]
            case ast.keyword(arg="code", value=value):
                yield from words(value)
            case ast.Call(func=ast.Name(id="Reason"), args=[first, *_]):
                yield from words(first)
            case ast.Assign(targets=[ast.Name(id="code")], value=value):
                yield from words(value)
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                for name, value in zip(names, values, strict=True):
                    if isinstance(name, ast.Name) and name.id == "code":
                        yield from words(value)


def codes_of_the_code() -> set[str]:
    from tokenplace.wire.messages import Outcome

    written = {code for file in SOURCE.rglob("*.py") for code in codes_in(ast.parse(file.read_text()))}
    never_told = {"done", INTERRUPTED}
    return (written | {outcome.value for outcome in Outcome}) - never_told


def test_every_stable_code_has_its_row_and_no_row_is_invented() -> None:
    rows = first_cells(ERRORS)
    assert len(rows) == len(set(rows)), "a code stands there twice"
    known = codes_of_the_code()
    assert known - set(rows) == set(), "codes without a row"
    assert set(rows) - known - {"empty_string"} == set(), "rows without a code"


def test_the_search_for_codes_finds_them() -> None:
    source = ['class E: code = "one"', 'f(code="two" if x else "three")', 'Reason("four", "no")', 'a, code = 1, "five"']
    assert set(codes_in(ast.parse("\n".join(source)))) == {"one", "two", "three", "four", "five"}


# -- settings and commands -----------------------------------------------------------------------------------------


def variables_of_the_code() -> set[str]:
    found = set()
    for file in SOURCE.rglob("*.py"):
        text = file.read_text()
        found |= set(re.findall(r'_VARIABLE(?:: Final)? = "([A-Z_]+)"', text))
        found |= set(re.findall(r'environ(?:\.get\(|\[)"([A-Z_]+)"', text))
        if file.name == "settings.py":
            found |= set(re.findall(r'"([A-Z][A-Z0-9]*_[A-Z0-9_]+)"', text))
    return found


def test_every_environment_variable_is_in_the_settings_page() -> None:
    known = variables_of_the_code()
    assert "TOKEN_PLACE_RELAYS" in known
    assert known - set(first_cells("docs/reference/settings.md")) == set()


def test_the_list_of_settings_that_programs_carry_is_what_the_code_says() -> None:
    assert generate.VARIABLES.read_text() == generate.variables_json(), "run: python tests/docs/generate.py"


def test_every_setting_says_what_it_does() -> None:
    for name, make in generate.TABLES.items():
        if name.startswith("settings-of"):
            empty = [row for row in make().splitlines()[2:] if row.endswith("|  |")]
            assert empty == [], name


def test_pages_name_no_variable_that_does_not_exist() -> None:
    from tokenplace.config.original import VARIABLES

    known = variables_of_the_code() | set(VARIABLES)
    for page in every_page():
        named = set(re.findall(r"\b((?:TOKEN_?PLACE|API|RELAY)_[A-Z_]+)\b", page.read_text()))
        assert named <= known, f"{page.name}: {named - known}"


@pytest.mark.parametrize("path", [path for path, _ in generate.leaves(get_command(app))])
def test_the_page_of_commands_has_every_option_that_help_shows(path: str) -> None:
    section = re.split(r"^### ", read("docs/reference/commands.md"), flags=re.MULTILINE)
    [mine] = [part for part in section if re.match(rf"`{path}(?: [A-Z0-9_]+)*`", part)]
    helped = CliRunner().invoke(app, [*path.split()[1:], "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert helped.exit_code == 0
    shown = set(re.findall(r"(?<![\w`-])--[a-z][a-z0-9-]+", re.sub(r"`[^`]*`", "", helped.output))) - {"--help"}
    assert shown == set(re.findall(r"^\| `(--[a-z0-9-]+)`", mine, re.MULTILINE))


def test_commands_in_blocks_have_options_that_exist() -> None:
    known = {
        path: {name for each in command.params for name in each.opts}
        for path, command in generate.leaves(get_command(app))
    }
    for page in every_page():
        for block in blocks(str(page.relative_to(ROOT)), "sh"):
            for line in re.findall(r"^tokenplace .*", block, re.MULTILINE):
                path = max((path for path in known if line.startswith(path)), key=len, default=None)
                assert path is not None, line
                assert set(re.findall(r"(?<!\S)--?[a-z][a-z0-9-]*", line)) <= known[path], line


# -- the protocol --------------------------------------------------------------------------------------------------


def test_the_protocol_page_names_every_route_and_parameter() -> None:
    text = read(PROTOCOL)
    for name, value in vars(routes).items():
        if name.isupper():
            assert value in text, name


def test_the_protocol_page_has_the_numbers_of_the_code() -> None:
    text = " ".join(read(PROTOCOL).split())
    assert request.HEADER_BYTES == 40
    assert "first 40 bytes" in text
    assert f"HPKE enc ({Kem.X25519_MLKEM768.enc_bytes} bytes; {Kem.X25519.enc_bytes} with plain X25519)" in text
    for kem in Kem:
        assert f"{kem.value:#06x}" in text
    for kind in (request.CONTENT_TYPE, stream.CONTENT_TYPE):
        assert f"`{kind}`" in text
    for prefix in (INFO_PREFIX, SIGNING_PREFIX, HELLO_PREFIX):
        assert f'"{prefix[:-1].decode()}\\0"' in text
    assert f"{limits.TIMING.clock_skew / 60:g} minutes either way" in text
    assert f"last {limits.TIMING.replay_memory / 60:g} minutes" in text


def test_the_layers_in_the_architecture_page_are_the_ones_that_are_enforced() -> None:
    import tomllib

    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    shown = [block for block in blocks("docs/explanation/architecture.md", "") if block.startswith("cli\n")]
    assert [line.split("  ")[0].strip() for line in shown[0].splitlines()] == layers


def test_the_architecture_page_names_files_that_are_there() -> None:
    named = set(re.findall(r"`([\w./-]+/[\w./-]*|\w+\.(?:py|ts))`", read("docs/explanation/architecture.md")))
    near = (
        "",
        "src/tokenplace",
        "src/tokenplace/node/engines",
        "clients/typescript/src/client",
        "src/tokenplace/relay",
    )
    gone = [name for name in named if not any((ROOT / folder / name).exists() for folder in near)]
    assert len(named) > 40
    assert gone == []
