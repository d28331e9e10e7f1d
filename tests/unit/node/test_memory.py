"""How much memory a model needs, and where it goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokenplace.errors import EngineError, WeightsError
from tokenplace.node.gguf import read_header
from tokenplace.node.memory import (
    GIB,
    MIB,
    Anatomy,
    Layer,
    Load,
    Room,
    Sizing,
    anatomy,
    compute,
    headroom_of,
    need,
    size_up,
)
from unit.node.heads import gguf, small

PLENTY = Room("memory", 64 * GIB, 64 * GIB)
LOAD = Load(slots=4, context=4096, batch=128)
EIGHT_BILLION = Anatomy(
    layers=(Layer(138 * MIB, 4096.0),) * 32, input=282 * MIB, output=411 * MIB, tied=False,
    vocabulary=128_256, width=4096, inner=14_336,
)  # fmt: skip


def told(folder: Path, data: bytes) -> Anatomy:
    path = folder / "m.gguf"
    path.write_bytes(data)
    return anatomy(read_header(path))


def sized(gpus: list[Room], memory: Room = PLENTY, load: Load = LOAD, **more: Any) -> Sizing:
    return size_up("X", EIGHT_BILLION, load, memory=memory, gpus=gpus, **more)


def gpu(free: float, number: int = 0) -> Room:
    return Room(f"GPU {number}", int(free * GIB), 8 * GIB)


class TestNeed:
    def test_the_cache_of_a_token_is_keys_and_values_of_every_layer_in_two_bytes_each(self, tmp_path: Path) -> None:
        model = told(tmp_path, small(layers=4))
        assert [layer.per_token for layer in model.layers] == [2 * (64 + 64) * 2.0] * 4
        assert model.layers[0].cache(slots=3, context=1000, batch=64) == 3 * 1024 * 512  # rounded up to 1,024

    def test_it_grows_with_slots_times_context(self) -> None:
        small_one = need(EIGHT_BILLION, Load(1, 2048, 128))
        assert need(EIGHT_BILLION, Load(4, 2048, 128)) - small_one > 3 * 2048 * 4096 * 32
        assert need(EIGHT_BILLION, Load(1, 8192, 128)) - small_one > 3 * 2048 * 4096 * 32

    def test_layers_with_a_window_keep_no_more_than_it(self, tmp_path: Path) -> None:
        fields = {"general.architecture": "gemma3", "gemma3.block_count": 12, "gemma3.embedding_length": 512,
                  "gemma3.attention.head_count": 8, "gemma3.attention.sliding_window": 512}  # fmt: skip
        model = told(tmp_path, gguf(fields, [(f"blk.{n}.w", 64) for n in range(12)]))
        assert [layer.window for layer in model.layers] == ([512] * 5 + [0]) * 2
        assert model.layers[0].cache(1, 8192, 128) == model.layers[5].cache(1, 8192, 128) * 768 // 8192

    def test_a_window_that_no_layer_is_told_to_have_is_not_believed(self, tmp_path: Path) -> None:
        model = told(tmp_path, small(**{"llama.attention.sliding_window": 512}))
        assert {layer.window for layer in model.layers} == {0}

    def test_layers_without_attention_have_a_state_instead_of_a_cache(self, tmp_path: Path) -> None:
        more: dict[str, Any] = {
            "llama.attention.head_count_kv": [2, 0, 2, 0],
            "llama.ssm.inner_size": 1024,
            "llama.ssm.state_size": 16,
            "llama.ssm.conv_kernel": 4,
            "llama.ssm.group_count": 1,
        }
        model = told(tmp_path, small(layers=4, **more))
        assert model.layers[1].per_token == 0
        assert model.layers[1].cache(2, 4096, 128) == 2 * model.layers[1].state > 0

    def test_a_file_without_layers_is_no_model(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="does not tell of its layers"):
            told(tmp_path, gguf({"general.architecture": "clip"}, [("v.patch", 64)]))

    @pytest.mark.parametrize(("said", "meant"), [(0.1, 0.1), (10, 0.1), (1, 1.0), (150, 1.5), (-3, 0.0), (0, 0.0)])
    def test_headroom_above_one_is_percent_and_below_zero_none(self, said: float, meant: float) -> None:
        assert headroom_of(said) == meant


class TestOneGpu:
    def test_what_fits_goes_to_the_gpu_whole(self) -> None:
        sizing = sized([gpu(8.0)])
        assert sizing.gpu_layers == 33  # llama.cpp's number for everything, the output layer too
        assert sizing.sentence == (
            "Model X needs 7.1 GiB; 8.0 of 8.0 GiB are free on GPU 0: all 32 layers go to the GPU."
        )

    def test_what_does_not_goes_there_by_layers_and_the_sentence_says_how_many(self) -> None:
        sizing = sized([gpu(4.0)])
        assert 0 < sizing.gpu_layers < 33
        assert f"4.0 of 8.0 GiB are free on GPU 0: {sizing.gpu_layers} of 32 layers go to the GPU." in sizing.sentence

    def test_the_headroom_stays_free(self) -> None:
        for free in (2.0, 3.0, 4.0, 6.0, 8.0):
            assert sized([gpu(free)]).gpu <= free * GIB / 1.1
        assert sized([gpu(4.0)], headroom=0.5).gpu_layers < sized([gpu(4.0)], headroom=0.0).gpu_layers

    def test_a_gpu_that_holds_nothing_leaves_all_to_the_processor(self) -> None:
        sizing = sized([gpu(0.3)])
        assert (sizing.gpu_layers, sizing.gpu) == (0, 0)
        assert "runs on the processor" in sizing.sentence

    def test_the_owner_may_bound_the_layers(self) -> None:
        assert sized([gpu(8.0)], most_layers=10).gpu_layers == 10
        assert sized([gpu(8.0)], most_layers=0).gpu_layers == 0

    def test_an_output_that_shares_the_inputs_table_is_counted_as_the_copy_it_becomes(self) -> None:
        tied = Anatomy(EIGHT_BILLION.layers, 500 * MIB, 0, True, 128_256, 4096, 14_336)
        apart = Anatomy(EIGHT_BILLION.layers, 500 * MIB, 0, False, 128_256, 4096, 14_336)
        both = [size_up("X", model, LOAD, memory=PLENTY, gpus=[gpu(8.0)], most_layers=1) for model in (tied, apart)]
        assert both[0].gpu - both[1].gpu == 500 * MIB


class TestSeveralGpus:
    def test_one_that_holds_it_alone_is_taken_alone(self) -> None:
        sizing = sized([gpu(3.0, 0), Room("GPU 1", 12 * GIB, 12 * GIB)])
        assert sizing.split == (0, 33)
        assert "on GPU 1" in sizing.sentence

    def test_two_share_what_neither_holds(self) -> None:
        sizing = sized([gpu(5.0, 0), gpu(5.0, 1)])
        assert sizing.gpu_layers == 33
        assert sum(sizing.split) == 33
        assert all(sizing.split)
        assert "5.0 of 8.0 GiB are free on GPU 0 and 5.0 of 8.0 GiB are free on GPU 1" in sizing.sentence

    def test_two_small_ones_take_a_part(self) -> None:
        alone, together = sized([gpu(2.0)]), sized([gpu(2.0, 0), gpu(2.0, 1)])
        assert alone.gpu_layers < together.gpu_layers < 33


class TestMemory:
    def test_slots_are_made_fewer_then_the_context_and_it_is_said(self) -> None:
        sizing = sized([], Room("memory", 7 * GIB, 8 * GIB))
        assert (sizing.slots, sizing.context) == (2, 4096)
        assert "does not hold 4 slots of 4096 tokens: it runs with 2 of 4096." in sizing.sentence
        assert sized([], Room("memory", int(5.9 * GIB), 8 * GIB)).context < 4096

    def test_what_the_owner_has_set_is_not_made_fewer(self) -> None:
        with pytest.raises(EngineError, match="4 slots of 4096 tokens"):
            sized([], Room("memory", 6 * GIB, 8 * GIB), shrink_slots=False, shrink_context=False)

    def test_a_model_that_cannot_run_is_refused_with_all_numbers(self) -> None:
        with pytest.raises(
            EngineError, match=r"needs 5\.\d GiB of memory .*; 3\.0 GiB of 8\.0 GiB are free"
        ) as refused:
            sized([], Room("memory", 3 * GIB, 8 * GIB))
        assert "Choose a smaller model" in refused.value.message

    def test_what_is_on_the_gpu_does_not_count_as_the_machines(self) -> None:
        assert sized([gpu(8.0)], Room("memory", 3 * GIB, 8 * GIB)).host < 3 * GIB

    def test_buffers_grow_with_the_batch(self) -> None:
        assert compute(EIGHT_BILLION, Load(4, 4096, 512)) > 3 * compute(EIGHT_BILLION, Load(4, 4096, 128)) // 2
