"""Terms of RDF as names of entities and relations, and names as terms; both ways exact.

An IRI is a name without its angle brackets, a blank node a name like ``_:label``. A name that is
neither is written as an IRI under `BASE`: its UTF-8 bytes, those outside ``A-Z a-z 0-9 - . _ ~``
percent-encoded. Reading turns such an IRI, and no other, back into the name.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

BASE = "urn:mocme:"
XSD = "http://www.w3.org/2001/XMLSchema#"
STRING = f"{XSD}string"
# IRIs and labels of a shape that surely satisfies RFC 3987 and N-Triples: most of what is met, not
# all that is allowed. Whatever does not match is pyoxigraph's to judge.
_RUN = r"[A-Za-z0-9._~!$&'()*+,;=:@/?\u00a1-\u1fff\u3001-\ud7ff-]*+"
_RUNS = rf"{_RUN}(?:%[0-9A-Fa-f]{{2}}{_RUN})*+"
PLAIN_IRI = (
    r"(?:https?://[A-Za-z0-9.-]++(?::[0-9]++)?+(?=[/?#>])|[A-Za-z]++:(?=[A-Za-z0-9%]))"
    rf"{_RUNS}(?:#{_RUNS})?+"
)
PLAIN_LABEL = r"_:[A-Za-z0-9][A-Za-z0-9_-]*+"
_PLAIN = re.compile(f"{PLAIN_IRI}>")
_PLACE = re.compile(r"\AParser error [^:]*: ")


class Value(NamedTuple):
    """A literal: its text with its language or datatype; a plain text has neither.

    A text whose direction is told has it behind its language, as in N-Triples (``ar--rtl``).
    """

    text: str
    language: str = ""
    datatype: str = ""


@cache
def oxigraph() -> ModuleType:
    """The package that reads RDF.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import pyoxigraph
    except ImportError as error:
        raise ValueError(
            "RDF needs pyoxigraph, which is not installed; pip install 'mocme[rdf]'"
        ) from error
    return pyoxigraph


def reason(error: SyntaxError) -> str:
    """Why pyoxigraph refused something, with the column; the line is told elsewhere."""
    column = f" (column {error.offset})" if error.offset else ""
    return _PLACE.sub("", error.msg) + column


def parsed(text: str | bytes) -> list[Any]:
    """The statements in some N-Triples.

    Raises:
        SyntaxError: it is not N-Triples.
    """
    known = oxigraph()
    return list(known.parse(text, format=known.RdfFormat.N_TRIPLES))


def statement(quad: Any) -> tuple[str, str, str | Value]:
    """Subject, predicate and object of a statement that pyoxigraph read.

    IRIs are as they stand; `name` gives the name of one under `BASE`.

    Raises:
        ValueError: a term is a statement itself (RDF 1.2), which no name stands for.
    """
    subject, predicate, target, _ = quad
    if type(target) is not oxigraph().Literal:
        return _node(subject), predicate.value, _node(target)
    language, datatype = target.language or "", target.datatype.value
    if direction := getattr(target, "direction", None):
        language += f"--{direction}"
    plain = language or datatype == STRING
    return _node(subject), predicate.value, Value(target.value, language, "" if plain else datatype)


def _node(term: Any) -> str:
    known, kind = oxigraph(), type(term)
    if kind is known.NamedNode:
        return str(term.value)
    if kind is known.BlankNode:
        return f"_:{term.value}"
    raise ValueError("a statement about a statement, which is no entity; give it an IRI")


def line(head: str, relation: str, target: str | Value) -> str:
    """A statement in N-Triples; characters of a text that need escapes are taken to have them."""
    if isinstance(target, str):
        last = written(target)
    else:
        mark = f"@{target.language}" if target.language else ""
        mark += f"^^<{target.datatype}>" if target.datatype else ""
        last = f'"{target.text}"{mark}'
    return f"{written(head)} <{relation}> {last} ."


def written(node: str) -> str:
    """An IRI or a blank node as a term of N-Triples."""
    return node if node.startswith("_:") else f"<{node}>"


def name(node: str, relation: bool = False) -> str:
    """The name that an IRI or a blank node stands for.

    Raises:
        ValueError: an IRI under `BASE` that `term` does not write, which might be taken for the
            name of another term.
    """
    return _decoded(node, relation) if node.startswith(BASE) else node


@lru_cache(1 << 16)
def _decoded(iri: str, relation: bool) -> str:
    try:
        found = unquote_to_bytes(iri.removeprefix(BASE)).decode()
        known = term(found, relation) == f"<{iri}>"
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"no name is written as {iri[:80]!r}; use another namespace than {BASE}")
    return found


@lru_cache(1 << 16)
def term(name: str, relation: bool = False) -> str:
    """A name as a term of N-Triples.

    Args:
        relation: whether it stands as a predicate, which cannot be a blank node.

    Raises:
        ValueError: the name is empty or no Unicode text.
    """
    if not name:
        raise ValueError("an empty name cannot be written as RDF; give it a name")
    if name.startswith("_:"):
        if not relation and _reads(name, name):
            return name
    elif ":" in name and not name.startswith(BASE):
        iri = f"<{name}>"
        if _PLAIN.fullmatch(f"{name}>") or _reads(iri, name):
            return iri
    try:
        return f"<{BASE}{quote(name, safe='')}>"
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name[:80]!r} holds half a surrogate pair, which UTF-8 cannot write; correct it"
        ) from error


def _reads(node: str, name: str) -> bool:
    """Whether some text is a term of N-Triples, and the one of that name."""
    try:
        found = parsed(f"{node} <a:a> <a:a> .".encode())
    except (SyntaxError, UnicodeEncodeError, MemoryError):
        # MemoryError: longer than pyoxigraph reads.
        return False
    return len(found) == 1 and statement(found[0])[0] == name
