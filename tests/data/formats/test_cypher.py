"""Cypher statements state the facts that they were written from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fact_files import NAMES, Row, facts_of, fits_cypher
from mocme.data.formats.kinds import cypher


def unescaped(text: str) -> str:
    r"""The first step of Neo4j: ``\uXXXX`` is a character, unless its backslash is escaped."""
    return re.sub(
        r"\\(?:u+([0-9A-Fa-f]{4})|.)",
        lambda match: chr(int(match[1], 16)) if match[1] else match[0],
        text,
        flags=re.DOTALL,
    )


def parse_cypher(text: str) -> list[Row]:
    """The facts in such statements, by a small tokenizer."""
    token = re.compile(r'"((?:[^"\\]|\\.)*)"|`((?:[^`]|``)*)`|(;)|[^"`;]+', re.DOTALL)
    escapes = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"'}
    rows: list[Row] = []
    names: list[str] = []
    kind = ""
    for match in token.finditer(unescaped(text)):
        name, quoted_type, end = match.groups()
        if name is not None:
            names.append(re.sub(r"\\(.)", lambda m: escapes[m[1]], name, flags=re.DOTALL))
        elif quoted_type is not None:
            kind = quoted_type.replace("``", "`")
        elif end:
            rows += [(h, kind, t) for h, t in zip(names[0::2], names[1::2], strict=True)]
            names = []
    return rows


def test_cypher_states_the_facts(tmp_path: Path) -> None:
    facts = facts_of([name for name in NAMES if fits_cypher(name)])
    facts += [(f"h{n}", "many", f"t{n}") for n in range(2500)]
    path = tmp_path / "facts.cypher"
    cypher.write(path, facts)
    text = path.read_bytes().decode()
    assert sorted(parse_cypher(text)) == sorted(facts)
    assert set(text) & set(map(chr, range(32))) == {"\n"}
    assert text.startswith("CREATE CONSTRAINT ")
    assert text.count("MERGE (head)-[:`many`]->(tail);") == 3
    cypher.write(path, facts)
    assert path.read_bytes().decode() == text


def test_cypher_limits(tmp_path: Path) -> None:
    path = tmp_path / "facts.cypher"
    for row, problem in [
        (("a", "r", "é" * 4001), "more than 8,000 bytes, which the index of Neo4j cannot hold"),
        (("a", "r" * 65_535, "b"), "more than 65,534 characters, which a type cannot hold"),
        (("a", "r\0", "b"), "a null character, which the type of a relationship cannot hold"),
    ]:
        with pytest.raises(ValueError, match=problem):
            cypher.write(path, [row])
    cypher.write(path, [("é" * 4000, "r" * 65_534, "\0")])
