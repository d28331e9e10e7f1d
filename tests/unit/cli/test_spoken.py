"""What a model says in a stream, put together; and how foreign text reaches the terminal."""

from __future__ import annotations

from typing import Any

from tokenplace.cli.chat import Call, Spoken, plain


def piece(index: int | None, id_: str | None = None, name: str | None = None, arguments: str | None = None) -> Any:
    call = {"index": index, "id": id_, "function": {"name": name, "arguments": arguments}}
    return {"tool_calls": [{key: value for key, value in call.items() if value is not None}]}


def spoken(*deltas: Any) -> Spoken:
    made = Spoken()
    for delta in deltas:
        made.take(delta)
    return made


def test_words_and_parallel_calls_are_put_together_from_interleaved_pieces() -> None:
    said = spoken(
        {"role": "assistant", "content": None},
        {"content": "Let me "},
        {"content": "see."},
        piece(0, "a", "add", ""),
        piece(1, "b", "look", '{"at"'),
        piece(0, arguments='{"x": '),
        piece(1, arguments=': "ö"}'),
        piece(0, arguments="1}"),
        {},
    )
    assert said.text == "Let me see."
    assert said.asked() == [Call("a", "add", {"x": 1}), Call("b", "look", {"at": "ö"})]
    assert said.asked()[1].shown() == {
        "id": "b",
        "type": "function",
        "function": {"name": "look", "arguments": '{"at": "ö"}'},
    }


def test_calls_without_ids_or_with_the_same_one_are_told_apart() -> None:
    said = spoken(
        piece(0, name="a"),
        piece(1, "x", "b"),
        piece(2, "x", "c"),
        piece(3, "call_0", "d"),
        piece(4, "call_2"),
        piece(5),
    )
    ids = [call.id for call in said.asked()]
    assert len(set(ids)) == 6
    assert ids[1] == "x"


def test_a_call_that_cannot_be_one_stays_legal_in_the_history() -> None:
    said = spoken(piece(0, "a", "rm -rf", '{"cut": "of'), piece(1, "b", None, "[1]"), piece(2, "c", "fine", ""))
    assert said.asked() == [Call("a", "unknown", None), Call("b", "unknown", None), Call("c", "fine", {})]
    assert said.asked()[0].shown()["function"] == {"name": "unknown", "arguments": "{}"}


def test_text_that_could_move_the_cursor_or_hide_words_is_spelled_out() -> None:
    assert plain("add\x1b[2J\x9b1A\u202eevil\r\n ü 東") == "add\\x1b[2J\\x9b1A\\u202eevil\\r\\n ü 東"
