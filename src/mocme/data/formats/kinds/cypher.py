r"""Cypher statements for Neo4j; write-only.

Every entity is a node ``(:Entity {name: ...})``, and every fact a relationship whose type is the
exact name of its relation, in backticks. The statements may be run repeatedly: they add only what
is missing. Facts are grouped by relation, up to `GROUP` per statement; the same rows always give
the same text. Run it with ``cypher-shell --file FILE``.

Quoting follows the Cypher manual (string literals; names in backticks, in which a backtick is
doubled and ``\uXXXX`` is a character).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from mocme.data.formats.base import Format
from mocme.data.formats.columns import FactColumns
from mocme.data.formats.report import Block, Report
from mocme.data.formats.writers import Row, atomic_file, batches, name_error

# Facts per statement.
GROUP = 1000
# Limits of the index behind the constraint (8,167 bytes with its own overhead), and of a type.
LONGEST_NAME, LONGEST_TYPE = 8000, 65534
CONSTRAINT = (
    "CREATE CONSTRAINT entity_name IF NOT EXISTS FOR (e:Entity) REQUIRE e.name IS UNIQUE;\n"
)
# Control characters are escaped, so that a program that reads the statements line by line does not
# change a line end within a name.
_CONTROLS = {code: f"\\u{code:04X}" for code in (*range(32), 127)}
_IN_TEXT = _CONTROLS | {
    ord("\\"): "\\\\",
    ord('"'): '\\"',
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}
_IN_TYPES = _CONTROLS | {ord("`"): "``", ord("\\"): "\\u005C"}


def facts(path: str | Path, report: Report, columns: FactColumns | None = None) -> Iterator[Block]:
    """Refuse to read.

    Raises:
        ValueError: always, with the way to read a Neo4j database.
    """
    raise ValueError(
        f"{path}: Cypher is written, not read; export the relationships of the database as CSV"
    )


def write(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows as statements.

    Raises:
        ValueError: Neo4j cannot hold a name: an entity's is longer than 8,000 bytes, or a
            relation's is longer than 65,534 characters or contains a null character; see also
            `writers.batches` and `writers.written`.
    """
    with atomic_file(path) as file:
        file.write(CONSTRAINT.encode())
        for batch in batches(rows, path):
            by_relation: dict[str, list[str]] = {}
            for head, relation, tail in batch:
                pair = f"[{_text(head, path)}, {_text(tail, path)}]"
                by_relation.setdefault(relation, []).append(pair)
            for relation, pairs in by_relation.items():
                for start in range(0, len(pairs), GROUP):
                    group = pairs[start : start + GROUP]
                    file.write(_statement(_type(relation, path), group).encode())


def _statement(kind: str, pairs: list[str]) -> str:
    return (
        f"UNWIND [{', '.join(pairs)}] AS fact\n"
        f"MERGE (head:Entity {{name: fact[0]}})\n"
        f"MERGE (tail:Entity {{name: fact[1]}})\n"
        f"MERGE (head)-[:{kind}]->(tail);\n"
    )


def _text(name: str, path: str | Path) -> str:
    if len(name.encode()) > LONGEST_NAME:
        problem = f"more than {LONGEST_NAME:,} bytes, which the index of Neo4j cannot"
        raise name_error(path, name, problem, "shorten it, or write CSV, JSON lines or Parquet")
    return f'"{name.translate(_IN_TEXT)}"'


def _type(name: str, path: str | Path) -> str:
    remedy = "rename it, or write CSV, JSON lines or Parquet"
    if "\0" in name:
        problem = "a null character, which the type of a relationship cannot"
        raise name_error(path, name, problem, remedy)
    # Neo4j counts UTF-16 code units, as Java does: a character above U+FFFF counts as two.
    if len(name.encode("utf-16-le")) // 2 > LONGEST_TYPE:
        problem = f"more than {LONGEST_TYPE:,} characters, which a type cannot"
        raise name_error(path, name, problem, remedy)
    return f"`{name.translate(_IN_TYPES)}`"


FORMAT = Format(name="Cypher", endings=(".cypher",), facts=facts, write=write, readable=False)
