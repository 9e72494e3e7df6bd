"""Words, bigrams and subwords of texts, with limits compared with a naive count."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from mocme.core.extras import remedy
from mocme.core.interrupts import Interrupted
from mocme.core.registry import ConfigError
from mocme.data.features.sources import Words
from mocme.data.graph import Graph, Vocabulary
from mocme.data.modality import Tokens
from mocme.data.modality_files import read_safetensors, unpack_modality
from mocme.encoders.base import EncodingJob, EncodingReport
from mocme.encoders.catalog import encoder_of
from mocme.encoders.kinds import words as words_kind
from mocme.encoders.subwords import START, SubwordTokenizer

NAMES = ["nan", "007", " b", "c.d", "é", "f"]
TEXTS = [
    ("nan", "A red dog in the sun"),
    ("f", "The red cat; the sun"),
    ("é", "Red dogs, red cats"),
    ("007", "A dog"),
    ("f", "red sun"),
]
Encode = Callable[..., tuple[EncodingReport, Tokens]]


@pytest.fixture
def graph() -> Graph:
    return Graph(Vocabulary(NAMES), Vocabulary(["r"], "relation"), {})


@pytest.fixture
def encode(tmp_path: Path, graph: Graph) -> Encode:
    def run(*paths: str, **settings: Any) -> tuple[EncodingReport, Tokens]:
        table = {"kind": "words", "paths": list(paths), **settings}
        job = EncodingJob(graph, "text", tmp_path, tmp_path / "out")
        report = encoder_of(table, "x").encode(job)
        tensors, metadata = read_safetensors(job.path)
        assert metadata["entities"] == graph.entities.digest()
        assert report.items == report.encoded + len(report.failures)
        tokens = unpack_modality(tensors, metadata, graph.num_entities)
        assert isinstance(tokens, Tokens)
        assert report.present == int(tokens.present().sum())
        assert report.counts["different tokens"] == len(tokens.vocabulary)
        assert report.counts["tokens of entities"] == len(tokens.token)
        return report, tokens

    return run


def put(path: Path, rows: list[tuple[str, ...]]) -> str:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path.name


def by_name(tokens: Tokens) -> dict[str, list[str]]:
    sets: dict[str, list[str]] = {}
    for entity, token in zip(tokens.entity.tolist(), tokens.token.tolist(), strict=True):
        sets.setdefault(NAMES[entity], []).append(tokens.vocabulary[token])
    return sets


# -- words and bigrams ---------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["words", "bigrams"])
def test_tokens_equal_those_of_the_modality_words(
    tmp_path: Path, graph: Graph, encode: Encode, unit: Any
) -> None:
    put(tmp_path / "a.tsv", TEXTS[:3])
    put(tmp_path / "b.tsv", TEXTS[3:])
    limits: dict[str, Any] = {"at_least": 2, "at_most": 0.8, "per_entity": 3, "unit": unit}
    expected, _ = Words(paths=["a.tsv", "b.tsv"], **limits).load(graph, tmp_path)
    _, tokens = encode("a.tsv", "b.tsv", **limits)
    assert tokens.digest() == expected.digest()
    assert len(tokens.token)


@given(
    st.lists(st.lists(st.sampled_from(["one", "two", "six", "ten"]), max_size=5), max_size=6),
    st.integers(0, 3),
    st.integers(1, 3),
    st.sampled_from([0.25, 0.5, 1.0]),
    st.sampled_from(["words", "bigrams"]),
)
def test_tokens_equal_those_of_a_naive_count(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[list[str]],
    per_entity: int,
    at_least: int,
    at_most: float,
    unit: str,
) -> None:
    folder = tmp_path_factory.mktemp("words")
    table = [(NAMES[n], " ".join(words)) for n, words in enumerate(texts)]
    put(folder / "a.tsv", table)
    graph = Graph(Vocabulary(NAMES), Vocabulary(["r"], "relation"), {})
    sets = {}
    for name, text in table:
        words = text.split()
        pairs = {f"{a} {b}" for a, b in pairwise(words)}
        if words:
            sets[name] = set(words) if unit == "words" else pairs
    counts = Counter(token for tokens in sets.values() for token in tokens)
    expected = {}
    for name, tokens in sets.items():
        allowed = [t for t in tokens if at_least <= counts[t] <= at_most * len(sets) + 1e-9]
        ranked = sorted(allowed, key=lambda t: (counts[t], t))
        if chosen := ranked[: per_entity or None]:
            expected[name] = sorted(chosen)
    settings = {"per_entity": per_entity, "at_least": at_least, "at_most": at_most, "unit": unit}
    encoder = encoder_of({"kind": "words", "paths": ["a.tsv"], **settings}, "x")
    job = EncodingJob(graph, "text", folder, folder)
    if not expected:
        with pytest.raises(ValueError, match=rf"a.tsv: no {unit[:-1]} occurs in {at_least} ent"):
            encoder.encode(job)
        return
    report = encoder.encode(job)
    result = unpack_modality(*read_safetensors(job.path), graph.num_entities)
    assert isinstance(result, Tokens)
    assert by_name(result) == expected
    assert len(report.failures) == len(texts) - len(sets)
    without = report.counts.get(f"texts without a {unit[:-1]} within the limits", 0)
    assert without == len(sets) - len(expected)


@pytest.mark.parametrize("unit", ["words", "bigrams", "subwords"])
def test_every_format_gives_the_same_tokens(tmp_path: Path, encode: Encode, unit: str) -> None:
    put(tmp_path / "a.tsv", TEXTS)
    text = "".join(f'{entity},"{text}"\n' for entity, text in [("entity", "text"), *TEXTS])
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    lines = [json.dumps({"entity": entity, "text": text}) for entity, text in TEXTS]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    columns = {"entity": [row[0] for row in TEXTS], "text": [row[1] for row in TEXTS]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    limits = {"at_least": 2, "at_most": 1.0, "unit": unit}
    sets = [encode(f"a.{e}", **limits)[1] for e in ("tsv", "csv", "jsonl", "parquet")]
    assert {tokens.digest() for tokens in sets} == {sets[0].digest()}
    assert len(sets[0].token)


def test_the_report_accounts_for_every_text(tmp_path: Path, encode: Encode) -> None:
    rows = [*TEXTS, ("unknown", "red dog"), (" b", " "), ("c.d", "xylophone"), ("nan", "")]
    put(tmp_path / "a.tsv", rows)
    report, tokens = encode("a.tsv", at_least=2, at_most=1.0)
    assert [(f.entity, f.place.split(", ")[1]) for f in report.failures] == [(" b", "line 7")]
    assert (report.unknown, report.strange) == (1, ["unknown"])
    assert (report.items, report.encoded, report.present) == (6, 5, 4)
    assert report.counts["entities with several texts, joined"] == 2
    assert report.counts["texts without a word within the limits"] == 1
    assert set(by_name(tokens)) == {"nan", "f", "é", "007"}
    assert "c.d" not in by_name(tokens)


@pytest.mark.parametrize("unit", ["words", "subwords"])
@pytest.mark.parametrize("page", [1, 2])
def test_a_second_run_makes_the_same_bytes(
    tmp_path: Path, encode: Encode, unit: str, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "a.tsv", TEXTS)
    limits = {"at_least": 2, "at_most": 1.0, "unit": unit}
    path = Path(encode("a.tsv", **limits)[0].path)
    first = path.read_bytes()
    monkeypatch.setattr(words_kind, "PAGE", page)  # the size of pages does not matter
    encode("a.tsv", **limits)
    assert path.read_bytes() == first


def test_a_job_can_be_stopped(tmp_path: Path, graph: Graph) -> None:
    put(tmp_path / "a.tsv", TEXTS)
    for unit in ("words", "subwords"):
        job = EncodingJob(graph, "text", tmp_path, tmp_path)
        job.stopped.set()
        with pytest.raises(Interrupted, match="stopped"):
            encoder_of({"kind": "words", "paths": ["a.tsv"], "unit": unit}, "x").encode(job)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"per_entity": -1}, "0 or more"),
        ({"at_least": 0}, "1 or more"),
        ({"at_most": 0.0}, "a share"),
        ({"at_most": 1.1}, "a share"),
        ({"unit": "letters"}, "none of words, bigrams, subwords"),
        ({"tokenizer": "t.json"}, 'for unit = "subwords"'),
        ({"vocabulary": 0}, "at least 1"),
    ],
)
def test_a_setting_out_of_range_is_an_error(table: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"x.*{problem}"):
        encoder_of({"kind": "words", "paths": ["a.tsv"], **table}, "x")


# -- subwords ------------------------------------------------------------------------------------


def merges_of(texts: list[str], size: int) -> list[tuple[str, str]]:
    """Textbook byte pair encoding: merge the most frequent pair until there are `size` subwords.

    Of equally frequent pairs, the one with the earliest subwords is merged.
    """
    counts = Counter(START + word for text in texts for word in text.lower().split())
    split = {word: list(word) for word in counts}
    subwords = sorted({letter for word in counts for letter in word})
    merges = []
    while len(subwords) < size:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in split.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], *map(subwords.index, pair)))
        for parts in split.values():
            index = 0
            while index < len(parts) - 1:
                if (parts[index], parts[index + 1]) == best:
                    parts[index : index + 2] = ["".join(best)]
                index += 1
        subwords.append("".join(best))
        merges.append(best)
    return merges


def test_a_tokenizer_is_trained_by_byte_pair_encoding() -> None:
    texts = ["low low low low low", "lower lower NEWEST newest newest", "newest newest newest"]
    tokenizer = SubwordTokenizer.train(texts, 17)
    expected = merges_of(texts, 17)
    merges = json.loads(tokenizer.content)["model"]["merges"]
    assert [tuple(pair) for pair in merges] == expected
    assert tokenizer.size == 17


def test_subwords_are_common_words_and_parts_of_rare_words() -> None:
    tokenizer = SubwordTokenizer.train(["red dog"] * 9 + ["red dogs", "हिन्दी, में"], 60)
    (subwords,) = tokenizer(["Red DOGS red; हिन्दी"])
    assert subwords[0] == f"{START}red"
    assert "".join(subwords).replace(START, " ") == " red dogs हिन्दी"
    # The mark of a word's start and unknown letters are not subwords.
    assert tokenizer(["x", "", "?!"]) == [[], [], []]


def test_a_trained_tokenizer_is_written_and_can_be_used_again(
    tmp_path: Path, encode: Encode
) -> None:
    put(tmp_path / "a.tsv", TEXTS)
    limits = {"at_least": 2, "at_most": 1.0, "unit": "subwords"}
    report, tokens = encode("a.tsv", vocabulary=30, **limits)
    path = tmp_path / "out" / "encoded" / "text.tokenizer.json"
    assert report.counts["subwords of the tokenizer"] == 30
    again, same = encode("a.tsv", tokenizer=str(path.relative_to(tmp_path)), **limits)
    assert same.digest() == tokens.digest()
    assert same.provenance["encoder_revision"] == tokens.provenance["encoder_revision"]
    digest = SubwordTokenizer.read(path).sha256
    assert tokens.provenance["encoder_revision"] == f"sha256 {digest}"
    assert again.counts["subwords of the tokenizer"] == 30


def test_special_and_unknown_tokens_of_a_given_tokenizer_are_left_out(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {"[UNK]": 0, "[CLS]": 1, "red": 2, "dog": 3, "##s": 4}
    tokenizer: Any = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[CLS]"])
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A", None, [("[CLS]", 1)])
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    subwords_of = SubwordTokenizer.read(path)
    assert subwords_of(["Red dogs, red cats [CLS]", ""]) == [["red", "dog", "##s"], []]


def test_an_unusable_tokenizer_is_named(tmp_path: Path, encode: Encode) -> None:
    put(tmp_path / "a.tsv", TEXTS)
    with pytest.raises(ValueError, match=r"t.json: cannot be read .*leave out tokenizer"):
        encode("a.tsv", unit="subwords", tokenizer="t.json")
    for content in (b"", b"{}", b"\xff", b'{"model": 1}'):
        (tmp_path / "t.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"t.json: is not a tokenizer.json"):
            encode("a.tsv", unit="subwords", tokenizer="t.json")


def test_texts_without_letters_have_no_subwords(tmp_path: Path, encode: Encode) -> None:
    put(tmp_path / "a.tsv", [("f", "..."), ("é", "")])
    with pytest.raises(ValueError, match=r"a.tsv: no subword occurs in 3 entities or more"):
        encode("a.tsv", unit="subwords")


def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    put(tmp_path / "a.tsv", TEXTS)
    with pytest.raises(
        ValueError, match=rf"tokenizers is not installed.*{re.escape(remedy('tokens'))}"
    ):
        encode("a.tsv", unit="subwords")


# -- from tables to a graph's features -----------------------------------------------------------


def test_encoded_modalities_are_read_as_features(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from mocme.cli import main
    from mocme.data.features.sources import read_features
    from mocme.data.load import load

    folder = tmp_path / "g"
    folder.mkdir()
    facts = [f"e{n}\tr\te{n + 1}\n" for n in range(12)]
    (folder / "train.tsv").write_text("".join(facts))
    texts = [f"e{n}\tred dog {'sun' if n % 2 else 'cat'} {n}\n" for n in range(12)]
    (folder / "texts.tsv").write_text("".join(texts))
    numbers = [f"e{n},{n * n},{n % 3}\n" for n in range(12)]
    (folder / "n.csv").write_text("".join(["entity,size,age\n", *numbers]))
    (folder / "graph.toml").write_text(
        '[encode.codes]\nkind = "codes"\nof = "numbers"\ncodes = 3\nat_most = 1.0\n'
        '[encode.numbers]\nkind = "numeric"\npaths = ["n.csv"]\nattributes = ["size", "age"]\n'
    )

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["encode", *arguments, "--threads", "1"])
        assert result.exit_code == 0, result.output
        return result.output

    assert "12 of 13 entities have it, 4 wide" in run("all", str(folder))
    limits = ("--set", "at_most=1.0", "--set", "at_least=2")
    for unit in ("words", "bigrams", "subwords"):
        paths = ("--from", str(folder / "texts.tsv"), "--name", unit, "--set", f"unit={unit}")
        assert "sets of tokens" in run("words", str(folder), *paths, *limits)
    table = ("--from", str(folder / "n.csv"), "--column", "size", "--column", "age")
    run("bins", str(folder), *table, "--set", "bins=2")
    graph = load(folder)
    features = read_features(graph, graph.modalities)
    assert list(features.dense) == ["numbers"]
    assert list(features.tokens) == ["codes", "words", "bigrams", "subwords", "bins"]
    assert features.tokens["bins"].vocabulary == ("age#0", "age#1", "size#0", "size#1")
    assert set(features.tokens["words"].vocabulary) == {"cat", "dog", "red", "sun"}
    assert "red dog" in features.tokens["bigrams"].vocabulary
