"""The status page: what it tells, whom, and who may pause."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2 as httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tokenplace.node.counts import Counts
from tokenplace.node.http import MOST_AT_ONCE, Request, Response, StatusPortTaken, answering, bind
from tokenplace.node.resources import Gauge, GpuLoad, NvidiaCards, Power, Resources
from tokenplace.node.standing import LinkStep, RelayState, Report, Situation
from tokenplace.node.status import CONTROL, StatusPage

HOST = "127.0.0.1:3000"
NASTY = "<script>alert(1)</script>"


class Node:
    """A node that only stands."""

    def __init__(self) -> None:
        self.pauses: dict[str, str] = {}
        self.relays = [RelayState("https://relay.example", LinkStep.WAITING, NASTY)]

    def report(self) -> Report:
        situation = Situation(self.relays, ("m",), True, self.pauses, False, 0, 99.0)
        counts = Counts(0.0, done=3, failed=1, tokens=40, prompt_tokens=9, seconds=36.0)
        return Report.of(situation, counts, 60.0, node="abcd-efgh", version="1.2", mock=False, slots=4)

    def pause(self, reason: str) -> None:
        self.pauses["owner"] = reason

    def resume(self) -> None:
        self.pauses.clear()


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def page(node: Node) -> StatusPage:
    resources = Resources(12.5, 40.0, True, 2, 50.0, 25.0)
    return StatusPage(node, "127.0.0.1", lambda: resources, lambda: Power(None, "no counters"))


def ask(page: StatusPage, path: str, method: str = "GET", peer: str = "127.0.0.1", **headers: str) -> Response:
    named = {"host": HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return page.answer(Request(method, path, named, peer))


def test_health_has_the_contract_s_fields_and_no_others(page: StatusPage) -> None:
    answer = ask(page, "/health")
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok", "version": "1.2", "mock_mode": False})


def test_resources_have_the_contract_s_fields(page: StatusPage) -> None:
    assert json.loads(ask(page, "/metrics/resource").body) == {
        "cpu_percent": 12.5,
        "memory_percent": 40.0,
        "gpu_available": True,
        "gpu_count": 2,
        "gpu_utilization_percent": 50.0,
        "gpu_memory_percent": 25.0,
    }


def test_the_metrics_can_be_read_by_prometheus_and_name_nothing_from_outside(page: StatusPage) -> None:
    text = ask(page, "/metrics").body.decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    jobs = {sample.labels["outcome"]: sample.value for sample in families["tokenplace_node_jobs"].samples}
    assert jobs == {"done": 3, "failed": 1, "cancelled": 0}
    tokens = {sample.labels["kind"]: sample.value for sample in families["tokenplace_node_tokens"].samples}
    assert tokens == {"prompt": 9, "completion": 40}
    assert "relay.example" not in text


def test_the_page_writes_out_what_relays_say_as_text_and_loads_nothing(page: StatusPage) -> None:
    answer = ask(page, "/")
    html = answer.body.decode()
    assert NASTY not in html
    assert "&lt;script&gt;alert(1)" in html
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "src=" not in html


def test_the_policy_allows_the_very_script_and_style_of_the_page(page: StatusPage) -> None:
    import base64
    import hashlib
    import re

    answer = ask(page, "/")
    for tag in ("script", "style"):
        [text] = re.findall(f"<{tag}>(.*?)</{tag}>", answer.body.decode(), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in answer.headers["content-security-policy"]


def test_the_status_says_why_no_work_comes(page: StatusPage) -> None:
    status = json.loads(ask(page, "/status.json").body)
    assert status["why"][0]["code"] == "not_connected"
    assert status["power"] == {"watts": None, "source": "no counters"}


def test_its_owner_pauses_and_resumes(page: StatusPage, node: Node) -> None:
    answer = ask(page, "/pause", "POST", **{CONTROL: "1"})
    assert json.loads(answer.body)["standing"] == "paused"
    assert node.pauses
    assert json.loads(ask(page, "/resume", "POST", **{CONTROL: "1"}).body)["standing"] != "paused"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"method": "POST"}, 403),
        ({"method": "POST", CONTROL: "1", "origin": "https://evil.example"}, 403),
        ({"method": "POST", CONTROL: "1", "origin": "null"}, 403),
        ({"method": "POST", CONTROL: "1", "peer": "192.168.1.7"}, 403),
        ({"method": "POST", CONTROL: "1", "host": "evil.example:3000"}, 421),
        ({"method": "GET", CONTROL: "1"}, 405),
    ],
)
def test_nobody_else_pauses(page: StatusPage, node: Node, fields: dict[str, Any], status: int) -> None:
    assert ask(page, "/pause", **fields).status == status
    assert not node.pauses


def test_the_page_s_own_button_works(page: StatusPage, node: Node) -> None:
    assert ask(page, "/pause", "POST", **{CONTROL: "page", "origin": f"http://{HOST}"}).status == 200
    assert node.pauses


@pytest.mark.parametrize("host", ["evil.example", "evil.example:3000", "", "[", "localhost.evil.example:3000"])
def test_a_page_of_another_name_that_leads_here_reads_nothing(page: StatusPage, host: str) -> None:
    for path in ("/", "/status.json", "/health", "/metrics"):
        assert ask(page, path, host=host).status == 421


@pytest.mark.parametrize("host", ["localhost:3000", "127.0.0.1:9", "[::1]:3000"])
def test_this_machine_has_several_names(page: StatusPage, host: str) -> None:
    assert ask(page, "/health", host=host).status == 200


def test_what_is_not_there_and_what_cannot_be_done_have_a_clear_error(page: StatusPage) -> None:
    for path, method, status in (("/inference", "GET", 404), ("/health", "POST", 405), ("/pause", "PUT", 405)):
        answer = ask(page, path, method)
        assert answer.status == status
        assert json.loads(answer.body)["error"]["code"]


class TestTheServer:
    """Over a real socket."""

    @contextmanager
    def listening(self) -> Iterator[tuple[Any, str]]:
        listener = bind("127.0.0.1", 20000)
        yield listener, f"http://127.0.0.1:{listener.getsockname()[1]}"

    async def test_it_answers_several_at_once_and_heads_without_bodies(self, page: StatusPage) -> None:
        with self.listening() as (listener, url):
            async with answering(listener, page.answer), httpx.AsyncClient() as client:
                answers = await asyncio.gather(*(client.get(f"{url}/health") for _ in range(20)))
                assert {answer.status_code for answer in answers} == {200}
                head = await client.head(f"{url}/health")
                assert (head.status_code, head.content) == (200, b"")
                assert int(head.headers["content-length"]) == len(answers[0].content)

    @pytest.mark.parametrize(
        "sent",
        [
            b"nonsense\r\n\r\n",
            b"GET /health HTTP/1.1\r\n\r\n",  # no Host
            b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n",
            b"POST /pause HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + b"y" * 9000,
            b"\x16\x03\x01\x02\x00\x01\x00",
        ],
    )
    async def test_what_is_no_request_is_refused_and_the_next_is_answered(self, page: StatusPage, sent: bytes) -> None:
        with self.listening() as (listener, url):
            async with answering(listener, page.answer), httpx.AsyncClient() as client:
                reader, writer = await asyncio.open_connection(*listener.getsockname())
                writer.write(sent)
                writer.write_eof()
                answer = await asyncio.wait_for(reader.read(), 20)
                writer.close()
                assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 421"))
                assert (await client.get(f"{url}/health")).status_code == 200

    async def test_idle_connections_do_not_pile_up(self, page: StatusPage) -> None:
        with self.listening() as (listener, _):
            async with answering(listener, page.answer):
                idle = [await asyncio.open_connection(*listener.getsockname()) for _ in range(MOST_AT_ONCE)]
                reader, writer = await asyncio.open_connection(*listener.getsockname())
                try:
                    answer = await asyncio.wait_for(reader.read(), 20)
                except ConnectionError:
                    answer = b""
                assert answer == b""
                for _, each in [*idle, (reader, writer)]:
                    each.close()

    def test_a_port_that_is_taken_gives_way_to_the_next(self) -> None:
        with bind("127.0.0.1", 21000) as first:
            port = first.getsockname()[1]
            with bind("127.0.0.1", port) as second:
                assert port < second.getsockname()[1] < port + 50

    def test_an_address_that_is_none_of_ours_is_told(self) -> None:
        with pytest.raises(StatusPortTaken, match="--status-host"):
            bind("192.0.2.1", 3000)


class TestTheGauge:
    """Power, from files as the kernel shows them."""

    def counters(self, sys: Path, name: str, joules: float) -> None:
        folder = sys / "class/powercap" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "energy_uj").write_text(f"{int(joules * 1e6)}\n")

    def test_watts_are_what_the_packages_used_since_the_reading_before(self, tmp_path: Path) -> None:
        now = [100.0]
        self.counters(tmp_path, "intel-rapl:0", 1000.0)
        self.counters(tmp_path, "intel-rapl:0:0", 500.0)  # the cores, counted in the package
        self.counters(tmp_path, "intel-rapl:1", 50.0)
        gauge = Gauge(sys=tmp_path, clock=lambda: now[0])
        now[0] = 102.0
        self.counters(tmp_path, "intel-rapl:0", 1030.0)
        self.counters(tmp_path, "intel-rapl:0:0", 900.0)
        self.counters(tmp_path, "intel-rapl:1", 60.0)
        assert gauge.power() == Power(20.0, "processor")

    def test_a_counter_that_starts_again_is_passed_over_once(self, tmp_path: Path) -> None:
        now = [0.0]
        self.counters(tmp_path, "intel-rapl:0", 1000.0)
        gauge = Gauge(sys=tmp_path, clock=lambda: now[0])
        now[0] = 1.0
        self.counters(tmp_path, "intel-rapl:0", 3.0)
        assert gauge.power().watts is None
        now[0] = 2.0
        self.counters(tmp_path, "intel-rapl:0", 10.0)
        assert gauge.power().watts == 7.0

    @pytest.mark.parametrize(
        ("files", "watts"),
        [
            ({"power_now": "15250000"}, 15.2),
            ({"current_now": "1500000", "voltage_now": "12000000"}, 18.0),
        ],
    )
    def test_on_battery_it_is_the_battery_s_drain(self, tmp_path: Path, files: dict[str, str], watts: float) -> None:
        battery = tmp_path / "class/power_supply/BAT0"
        battery.mkdir(parents=True)
        for name, text in {"type": "Battery\n", "status": "Discharging\n", **files}.items():
            (battery / name).write_text(text)
        assert Gauge(sys=tmp_path).power() == Power(watts, "battery")

    def test_without_counters_it_says_so(self, tmp_path: Path) -> None:
        assert Gauge(sys=tmp_path).power() == Power(None, "this machine shows no power counters")

    def test_cards_add_their_watts_and_average_their_load(self, tmp_path: Path) -> None:
        gauge = Gauge(lambda: [GpuLoad(100.0, 50.0, 70.0), GpuLoad(0.0, 10.0, None)], sys=tmp_path)
        assert gauge.power() == Power(70.0, "graphics card")
        seen = gauge.resources()
        assert (seen.gpu_count, seen.gpu_utilization_percent, seen.gpu_memory_percent) == (2, 50.0, 30.0)
        assert 0 <= seen.cpu_percent <= 100
        assert 0 < seen.memory_percent <= 100

    def test_without_a_driver_there_are_no_cards(self) -> None:
        assert NvidiaCards(load=lambda: None)() == ()
        assert NvidiaCards(load=lambda: Nvml(driver=False))() == ()

    def test_what_a_card_does_not_tell_is_left_out(self) -> None:
        assert NvidiaCards(load=Nvml)() == (GpuLoad(30.0, 25.0, 75.5),)
        assert NvidiaCards(load=lambda: Nvml(tells=False))() == (GpuLoad(0.0, 25.0, None),)


class Nvml:
    """NVIDIA's library with one card; `tells` is whether that card measures its load and its power."""

    class NVMLError(Exception):
        """What the library raises."""

    def __init__(self, driver: bool = True, tells: bool = True) -> None:
        self._driver = driver
        self._tells = tells

    def nvmlInit(self) -> None:
        if not self._driver:
            raise self.NVMLError("no driver")

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, _: int) -> SimpleNamespace:
        return SimpleNamespace(used=6, total=24)

    def nvmlDeviceGetUtilizationRates(self, _: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=self._told(30))

    def nvmlDeviceGetPowerUsage(self, _: int) -> int:
        return self._told(75_500)

    def _told(self, value: int) -> int:
        if not self._tells:
            raise self.NVMLError("not supported")
        return value
