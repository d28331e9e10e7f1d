from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenplace.errors import TooLarge, WireError
from tokenplace.wire.card import Card, CardBody, SealingKey, b64, hello_signing_input, unb64
from tokenplace.wire.frames import pack_control, parse_control
from tokenplace.wire.limits import MAX_CARD_ENTRIES, MAX_CARD_MODELS, MAX_CONTROL, MAX_STREAMS_PER_NODE
from tokenplace.wire.messages import Ending, Hello, Listing, Outcome, Reason, Status
from tokenplace.wire.request import Kem

few = settings(max_examples=100, deadline=None, database=None)
BODY = CardBody(b"i" * 32, 3, 5, (SealingKey(Kem.X25519, b"p" * 32, 0, 9),), (), {"later": "news"})
CARD = Card.parse(f"{b64(BODY.pack())}.{b64(bytes(64))}")
HELLO = Hello(CARD, b"s" * 64, "relay.example", 4, "secret-token")
STATUS = Status(4, 2, CARD)
ENDING = Ending(Reason(Outcome.DONE), 2, 7)
LISTING = Listing(CARD, 4, 2, 1)
MESSAGES: list[Hello | Status | Ending | Listing | Reason] = [HELLO, STATUS, ENDING, LISTING, Reason("busy", "Later.")]
json_ = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_survives_the_wire(message: Any) -> None:
    assert type(message).parse(parse_control(pack_control(message.fields()))) == message


OPTIONAL = {("Hello", "token"), ("Status", "card"), ("Reason", "message"), ("Ending", "message"), ("Listing", "node")}
FIELDS = [(message, name) for message in MESSAGES for name in message.fields()]


@pytest.mark.parametrize(("message", "name"), FIELDS, ids=lambda value: str(value)[:20])
def test_a_missing_field_is_refused_by_name(message: Any, name: str) -> None:
    fields = {key: value for key, value in message.fields().items() if key != name}
    if (type(message).__name__, name) in OPTIONAL:
        type(message).parse(fields)
        return
    with pytest.raises(WireError, match=repr(name)):
        type(message).parse(fields)


@few
@given(st.sampled_from(FIELDS), json_)
def test_a_field_of_any_other_type_is_read_or_a_wire_error(place: tuple[Any, str], value: Any) -> None:
    message, name = place
    try:
        type(message).parse({**message.fields(), name: value})
    except WireError:
        return


@pytest.mark.parametrize("number", [True, 1.0, "1", None, -1, MAX_STREAMS_PER_NODE + 1])
def test_slots_are_a_small_whole_number(number: Any) -> None:
    with pytest.raises(WireError):
        Hello.parse({**HELLO.fields(), "slots": number})


@pytest.mark.parametrize("number", [True, 1.0, "1", None, -1, 5])
def test_no_more_is_free_than_there_is(number: Any) -> None:
    with pytest.raises(WireError):
        Status.parse({**STATUS.fields(), "free": number})


@pytest.mark.parametrize("field", ["free", "seen"])
def test_an_ending_counts_from_zero(field: str) -> None:
    with pytest.raises(WireError):
        Ending.parse({**ENDING.fields(), field: -1})


@pytest.mark.parametrize("code", ["", "a b", "a" * 41, "é", "a-b", "_", "a\n"])
def test_a_code_is_a_short_word(code: str) -> None:
    with pytest.raises(WireError):
        Reason.parse({"code": code})


def test_a_long_explanation_is_cut() -> None:
    assert len(Reason.parse({"code": "busy", "message": "x" * 5000}).message) == 400


def test_a_token_is_not_in_the_repr() -> None:
    assert "secret-token" not in repr(HELLO)


# -- the card ----------------------------------------------------------------------------------------------------------


def test_what_a_card_says_beyond_our_knowledge_is_kept() -> None:
    assert CARD.body == BODY
    assert Card.parse(CARD.text) == CARD


def with_body(**changes: Any) -> str:
    fields = {**parse_control(BODY.pack()), **changes}
    return f"{b64(pack_control({name: value for name, value in fields.items() if value is not ...}))}.{b64(bytes(64))}"


KEY = {"kem": 32, "public": b64(b"p" * 32), "not_before_ms": 0, "not_after_ms": 9}
MODEL = {"id": "m", "context": 1, "capabilities": [], "digest": None}


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 1},
        {"v": ...},
        {"node": "a" * 32},
        {"identity": b64(b"i" * 31)},
        {"identity": 5},
        {"sequence": -1},
        {"sequence": True},
        {"sequence": 1.0},
        {"sequence": "1"},
        {"issued_ms": None},
        {"keys": None},
        {"keys": {}.fromkeys("ab")},
        {"keys": [5]},
        {"keys": [{**KEY, "public": "!"}]},
        {"keys": [{**KEY, "not_after_ms": -1}]},
        {"keys": [{**KEY, "kem": []}]},
        {"models": [{**MODEL, "id": ""}]},
        {"models": [{**MODEL, "id": "x" * 257}]},
        {"models": [{**MODEL, "context": -1}]},
        {"models": [{**MODEL, "capabilities": [5]}]},
        {"models": [{**MODEL, "capabilities": None}]},
        {"models": [{**MODEL, "digest": ""}]},
        {"models": [{**MODEL, "id": f"m{number}"} for number in range(MAX_CARD_MODELS + 1)]},
        {"models": [{**MODEL, "capabilities": ["c"] * (MAX_CARD_ENTRIES + 1)}]},
        {"models": [{**MODEL, "context": 10**30}]},
        {"models": {"m": MODEL}},
        {"keys": [KEY] * (MAX_CARD_ENTRIES + 1)},
        {"sequence": 2**53},
    ],
    ids=str,
)
def test_a_card_that_contradicts_the_format_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        Card.parse(with_body(**changes))


def test_a_key_of_a_kind_not_known_yet_is_passed_over() -> None:
    card = Card.parse(with_body(keys=[{**KEY, "kem": 0x9999}, KEY]))
    assert [key.kem for key in card.body.keys] == [Kem.X25519]


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "no dot",
        CARD.text + "=",
        CARD.text + ".",
        CARD.text[:-2],
        "=" + CARD.text,
        " " + CARD.text,
        CARD.text.replace(".", "\n."),
        f"{b64(b'[1]')}.{b64(bytes(64))}",
        f"{b64(b'[' * 9000)}.{b64(bytes(64))}",
        f"{b64(BODY.pack())}.{b64(bytes(63))}",
    ],
)
def test_a_card_is_two_strict_parts(text: str) -> None:
    with pytest.raises(WireError):
        Card.parse(text)


def test_a_card_is_bounded() -> None:
    with pytest.raises(TooLarge):
        Card.parse("a" * (MAX_CONTROL + 1))


@few
@given(st.text(max_size=60) | st.text(alphabet="abcABC012-_.=+/", max_size=60))
def test_any_text_is_a_card_or_a_wire_error(text: str) -> None:
    with pytest.raises(WireError):
        Card.parse(text)


@few
@given(st.binary(max_size=50))
def test_base64url_is_reversed(data: bytes) -> None:
    assert unb64(b64(data)) == data


@pytest.mark.parametrize("text", ["QQ==", "QR", "A", "+w", "/w", "-_-_\n", "é", "Q Q"])
def test_base64url_has_one_spelling_only(text: str) -> None:
    with pytest.raises(WireError):
        unb64(text)


def test_the_relay_s_name_is_under_the_signature_in_any_case() -> None:
    assert hello_signing_input(b"n", "Relay.Example") == hello_signing_input(b"n", "relay.example")
    assert hello_signing_input(b"n", "relay.example") != hello_signing_input(b"n", "evil.example")
    assert hello_signing_input(b"na", "b") != hello_signing_input(b"n", "ab")
