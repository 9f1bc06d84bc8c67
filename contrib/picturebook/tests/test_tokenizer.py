"""The tokenizer is a standard CLIP tokenizer that knows every word of the world."""

from pathlib import Path
from random import Random

import pytest
from transformers import CLIPTokenizer

from efface_picturebook import tokenizer, world
from efface_picturebook.captions import caption
from efface_picturebook.scene import imagine


@pytest.fixture(scope="module")
def built() -> CLIPTokenizer:
    return tokenizer.build()


@pytest.fixture(scope="module")
def loaded(built: CLIPTokenizer, tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    built.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def test_building_it_twice_gives_the_same_vocabulary(built: CLIPTokenizer) -> None:
    assert tokenizer.build().get_vocab() == built.get_vocab()


def test_it_is_small_and_short(loaded: CLIPTokenizer) -> None:
    assert 260 <= len(loaded) <= 400
    assert loaded.model_max_length == 32


def test_every_word_of_the_world_is_one_token(loaded: CLIPTokenizer) -> None:
    assert [loaded.tokenize(word) for word in world.words()] == [[f"{word}</w>"] for word in world.words()]


def test_captions_survive_the_round_trip(built: CLIPTokenizer, loaded: CLIPTokenizer) -> None:
    for seed in range(300):
        said = caption(imagine(Random(seed)), Random(seed))
        ids = loaded(said).input_ids
        assert ids == built(said).input_ids
        assert loaded.decode(ids, skip_special_tokens=True) == said
        assert len(ids) <= loaded.model_max_length


def test_ids_start_and_end_as_clip_expects(loaded: CLIPTokenizer) -> None:
    ids = loaded("a cat", padding="max_length", max_length=32).input_ids
    assert ids[0] == loaded.bos_token_id
    assert ids[3:] == [loaded.eos_token_id] * 29


def test_a_word_it_never_saw_is_spelled(loaded: CLIPTokenizer) -> None:
    tokens = loaded.tokenize("zeppelin!")
    assert "".join(tokens).replace("</w>", "") == "zeppelin!"
    assert loaded.unk_token not in tokens


def test_it_saves_no_more_than_two_files(built: CLIPTokenizer, tmp_path: Path) -> None:
    built.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
