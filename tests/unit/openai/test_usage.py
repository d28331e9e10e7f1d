from __future__ import annotations

from tokenplace.openai.usage import Tally


def told(prompt: int, completion: int, **more: object) -> dict[str, object]:
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 0, **more}}


def test_the_total_is_added_up_here() -> None:
    tally = Tally()
    tally.read(told(10, 3), None)
    assert tally.told == {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}


def test_choices_that_are_told_one_by_one_share_their_prompt() -> None:
    tally = Tally(per_prompt=2)
    tally.read(told(10, 3), None)
    tally.read(told(10, 4), None)
    assert tally.told == {"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17}


def test_several_prompts_are_added() -> None:
    tally = Tally(per_prompt=2)
    for index, (prompt, completion) in enumerate([(10, 1), (10, 2), (5, 3), (5, 4)]):
        tally.read(told(prompt, completion), index)
    assert tally.told == {"prompt_tokens": 15, "completion_tokens": 10, "total_tokens": 25}


def test_usage_in_every_chunk_is_a_running_total() -> None:
    tally = Tally()
    for completion in range(1, 4):
        tally.read(told(10, completion), 0)
    assert tally.best["completion_tokens"] == 3


def test_the_closing_word_outweighs_the_running_ones() -> None:
    tally = Tally()
    tally.read(told(10, 2), 0)
    tally.read(told(10, 5), None)
    assert tally.best["completion_tokens"] == 5


def test_details_are_kept() -> None:
    tally = Tally()
    details = {"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2}}
    tally.read(told(10, 3, **details), None)
    usage = tally.best
    assert usage["prompt_tokens_details"] == {"cached_tokens": 4, "audio_tokens": 0}
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 2


def test_an_answer_that_broke_off_has_cost_the_pieces_that_went_by() -> None:
    tally = Tally()
    tally.count(0)
    tally.count(0, 3)
    assert tally.told is None
    assert tally.best == {"completion_tokens": 4}


def test_llamas_timings_tell_the_tokens_in_mid_answer() -> None:
    tally = Tally(per_prompt=2)
    for index, predicted in ((0, 5), (1, 7)):
        tally.count(index)
        tally.read({"timings": {"cache_n": 3, "prompt_n": 8, "predicted_n": predicted}}, index)
    assert tally.best == {"prompt_tokens": 11, "completion_tokens": 12, "total_tokens": 23}


def test_llamas_progress_tells_the_prompt_before_the_first_token() -> None:
    tally = Tally()
    tally.read({"prompt_progress": {"total": 300, "cache": 0, "processed": 128}}, 0)
    assert tally.best == {"prompt_tokens": 300, "completion_tokens": 0, "total_tokens": 300}


def test_nonsense_is_no_usage() -> None:
    tally = Tally()
    nonsense: list[dict[str, object]] = [
        {"usage": None},
        {"usage": {}},
        {"usage": {"prompt_tokens": -1}},
        {"usage": 3},
        {"timings": []},
        {"prompt_progress": 1},
    ]
    for chunk in nonsense:
        tally.read(chunk, None)
    assert tally.told is None
    assert tally.best == {"completion_tokens": 0}
