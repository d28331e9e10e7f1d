"""Files of MCP servers, and the names and results of their tools."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from docs.pages import blocks
from tokenplace.cli.main import app
from tokenplace.cli.toolbox import MAX_RESULT, Local, Remote, Toolbox, open_toolbox, read_servers
from tokenplace.openai.tools import MAX_TOOLS

SERVER = """
import sys
from mcp_types import ImageContent, TextContent
from mcp.server.mcpserver import MCPServer

server = MCPServer("any", log_level="CRITICAL")

def make(name):
    @server.tool(name=name, structured_output=False)
    def tool():
        match name:
            case "fail":
                raise RuntimeError("a secret path")
            case "picture":
                return [TextContent(text="look:"), ImageContent(data="AAAA", mime_type="image/png")]
            case "long":
                return "a" * 100_000
        return f"{name} ran"

for name in sys.argv[1:]:
    make(name)
server.run("stdio")
"""


def serving(*tools: str) -> Local:
    return Local(command=sys.executable, args=("-c", SERVER, *tools))


def names(toolbox: Toolbox) -> dict[str, str]:
    return {tool.full_name: tool.offered for tool in toolbox.tools}


async def results(toolbox: Toolbox, offered: Sequence[str]) -> list[str]:
    found = []
    for name in offered:
        tool = toolbox.find(name)
        assert tool is not None
        found.append((await toolbox.call(tool, {})).text)
    return found


# -- files ---------------------------------------------------------------------------------------------------------


def test_the_common_file_is_read_and_what_other_programs_keep_there_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "servers.json"
    file.write_text(
        """{"inputs": [], "mcpServers": {
            "here": {"type": "stdio", "command": "npx", "args": ["-y", "x"], "env": {"KEY": "s3cret"}, "cwd": "/tmp"},
            "there": {"url": "https://x.example/mcp", "headers": {"Authorization": "s3cret"}, "alwaysAllow": []}}}"""
    )
    servers = read_servers(file)
    assert servers == {
        "here": Local(command="npx", args=("-y", "x"), env={"KEY": "s3cret"}, cwd=Path("/tmp")),
        "there": Remote(url="https://x.example/mcp", headers={"Authorization": "s3cret"}),
    }
    assert "s3cret" not in repr(servers)


@pytest.mark.parametrize("content", blocks("docs/how-to/mcp.md", "json"))
def test_the_files_in_the_documentation_can_be_read(tmp_path: Path, content: str) -> None:
    file = tmp_path / "servers.json"
    file.write_text(content)
    assert read_servers(file)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[]", "mcpServers"),
        ('{"mcpServers": {"a": {}}}', 'mcpServers.a needs either a "command" or a "url"'),
        ('{"mcpServers": {"a": {"command": "x", "args": "y"}}}', "mcpServers.a.args"),
        ('{"mcpServers": {"a": {"command": "x", "env": {"KEY": 5}}}}', "mcpServers.a.env.KEY"),
        ('{"mcpServers": {"a": {"url": "ftp://x"}}}', "mcpServers.a.url"),
        ('{"mcpServers": {"a": {"url": "http://x", "type": "sse"}}}', "older SSE transport"),
    ],
)
def test_a_bad_file_of_servers_is_one_clear_line(tmp_path: Path, content: str | None, says: str) -> None:
    file = tmp_path / "servers.json"
    if content is not None:
        file.write_text(content)
    said = CliRunner().invoke(app, ["chat", "--mcp", str(file), "-m", "x"])
    assert (said.exit_code, said.stdout) == (1, "")
    assert says in said.stderr
    assert said.stderr.count("\n") == 1


def test_allowing_a_tool_without_a_file_of_servers_is_said() -> None:
    said = CliRunner().invoke(app, ["chat", "--allow-tool", "add", "-m", "x"])
    assert said.exit_code == 1
    assert "--mcp" in said.stderr


# -- names ---------------------------------------------------------------------------------------------------------


async def test_names_are_legal_for_openai_and_no_two_alike() -> None:
    long = "x" * 100
    told: list[str] = []
    servers = {"a": serving("b_c", "same", long, "über"), "a b": serving("same", long, "ober", "öber")}
    async with open_toolbox(servers, told.append) as toolbox:
        offered = names(toolbox)
        assert offered["a/b_c"] == "b_c"
        assert (offered["a/same"], offered["a b/same"]) == ("a_same", "a_b_same")
        assert (offered["a/über"], offered["a b/öber"], offered["a b/ober"]) == ("a__ber", "a_b__ber", "ober")
        assert len(set(offered.values())) == len(offered) == 8
        assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in offered.values())
        assert await results(toolbox, [offered["a b/same"], offered["a/über"]]) == ["same ran", "über ran"]
    assert told == []


async def test_more_tools_than_a_request_may_have_are_left_out_and_that_is_told() -> None:
    told: list[str] = []
    async with open_toolbox(
        {"many": serving(*(f"t{number}" for number in range(MAX_TOOLS + 2)))}, told.append
    ) as toolbox:
        assert len(toolbox.tools) == MAX_TOOLS
    assert told == [f"These servers have {MAX_TOOLS + 2} tools; only the first {MAX_TOOLS} are offered."]


# -- results -------------------------------------------------------------------------------------------------------


async def test_results_are_text_of_a_bounded_size() -> None:
    async with open_toolbox({"any": serving("picture", "long", "fail")}, pytest.fail) as toolbox:
        picture, long, fail = await results(toolbox, ["picture", "long", "fail"])
    assert picture == "look:\n[image/png: not text, left out]"
    assert long == "a" * MAX_RESULT + f"\n[cut here: {100_000 - MAX_RESULT} more characters]"
    assert fail == "Error: Error executing tool fail"


async def test_after_the_block_no_server_is_left_also_when_it_broke() -> None:
    before = set(psutil.Process().children())

    async def broken() -> None:
        async with open_toolbox({"any": serving("one")}, pytest.fail):
            assert set(psutil.Process().children()) - before
            raise RuntimeError("the chat broke")

    with pytest.raises(ExceptionGroup):
        await broken()
    assert not set(psutil.Process().children()) - before
