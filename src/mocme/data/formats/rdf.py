"""RDF terms as names of entities and relations, and names as terms; both conversions are exact.

An IRI is a name without its angle brackets, a blank node a name such as ``_:label``. A name that is
neither is written as an IRI under `BASE`: its UTF-8 bytes, percent-encoded except ``A-Z a-z 0-9 - .
_ ~``. Reading turns such an IRI, and no other, back into the name.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from mocme.core.extras import extra

BASE = "urn:mocme:"
XSD = "http://www.w3.org/2001/XMLSchema#"
STRING = f"{XSD}string"
# IRIs and labels of a shape that certainly satisfies RFC 3987 and N-Triples: most of those that
# occur, but not all that are valid. pyoxigraph decides on the others.
_RUN = r"[A-Za-z0-9._~!$&'()*+,;=:@/?\u00a1-\u1fff\u3001-\ud7ff-]*+"
_RUNS = rf"{_RUN}(?:%[0-9A-Fa-f]{{2}}{_RUN})*+"
PLAIN_IRI = (
    r"(?:https?://[A-Za-z0-9.-]++(?::[0-9]++)?+(?=[/?#>])|[A-Za-z]++:(?=[A-Za-z0-9%]))"
    rf"{_RUNS}(?:#{_RUNS})?+"
)
PLAIN_LABEL = r"_:[A-Za-z0-9][A-Za-z0-9_-]*+"
_PLAIN = re.compile(f"{PLAIN_IRI}>")
_ERROR_POSITION = re.compile(r"\AParser error [^:]*: ")


class Value(NamedTuple):
    """A literal: its text with its language or datatype; a plain text has neither.

    A text with a base direction has it after its language, as in N-Triples (``ar--rtl``).
    """

    text: str
    language: str = ""
    datatype: str = ""


@cache
def oxigraph() -> ModuleType:
    """The pyoxigraph package, which parses RDF.

    Raises:
        ValueError: it is not installed.
    """
    with extra("pyoxigraph", "rdf", "RDF needs"):
        import pyoxigraph
    return pyoxigraph


def error_reason(error: SyntaxError) -> str:
    """Why pyoxigraph refused a text, with the column but without the line."""
    column = f" (column {error.offset})" if error.offset else ""
    return _ERROR_POSITION.sub("", error.msg) + column


def parse_ntriples(text: str | bytes) -> list[Any]:
    """The statements in some N-Triples.

    Raises:
        SyntaxError: the text is not N-Triples.
    """
    known = oxigraph()
    return list(known.parse(text, format=known.RdfFormat.N_TRIPLES))


def statement(quad: Any) -> tuple[str, str, str | Value]:
    """Subject, predicate and object of a statement that pyoxigraph parsed.

    IRIs are unchanged; `name` gives the name of one under `BASE`.

    Raises:
        ValueError: a term is a statement itself (RDF 1.2), which has no name.
    """
    subject, predicate, target, _ = quad
    if type(target) is not oxigraph().Literal:
        return _node(subject), predicate.value, _node(target)
    language, datatype = target.language or "", target.datatype.value
    if direction := getattr(target, "direction", None):
        language += f"--{direction}"
    is_plain = language or datatype == STRING
    value = Value(target.value, language, "" if is_plain else datatype)
    return _node(subject), predicate.value, value


def _node(term: Any) -> str:
    known, kind = oxigraph(), type(term)
    if kind is known.NamedNode:
        return str(term.value)
    if kind is known.BlankNode:
        return f"_:{term.value}"
    raise ValueError("a statement about a statement, which is not an entity; give it an IRI")


def statement_line(head: str, relation: str, target: str | Value) -> str:
    """A statement in N-Triples; a literal's text must already have the escapes it needs."""
    if isinstance(target, str):
        last = node_term(target)
    else:
        mark = f"@{target.language}" if target.language else ""
        mark += f"^^<{target.datatype}>" if target.datatype else ""
        last = f'"{target.text}"{mark}'
    return f"{node_term(head)} <{relation}> {last} ."


def node_term(node: str) -> str:
    """An IRI or a blank node as a term of N-Triples."""
    return node if node.startswith("_:") else f"<{node}>"


def name(node: str, relation: bool = False) -> str:
    """The name that an IRI or a blank node stands for.

    Raises:
        ValueError: an IRI under `BASE` that `term` does not write, which could be confused with
            the name of another term.
    """
    return _decoded(node, relation) if node.startswith(BASE) else node


@lru_cache(1 << 16)
def _decoded(iri: str, relation: bool) -> str:
    try:
        decoded = unquote_to_bytes(iri.removeprefix(BASE)).decode()
        is_exact = term(decoded, relation) == f"<{iri}>"
    except ValueError:
        is_exact = False
    if not is_exact:
        raise ValueError(f"no name is written as {iri[:80]!r}; use another namespace than {BASE}")
    return decoded


@lru_cache(1 << 16)
def term(name: str, relation: bool = False) -> str:
    """A name as a term of N-Triples.

    Args:
        relation: whether it is a predicate, which cannot be a blank node.

    Raises:
        ValueError: the name is empty or not valid Unicode.
    """
    if not name:
        raise ValueError("an empty name cannot be written as RDF; give it a name")
    if name.startswith("_:"):
        if not relation and _is_term_of(name, name):
            return name
    elif ":" in name and not name.startswith(BASE):
        iri = f"<{name}>"
        if _PLAIN.fullmatch(f"{name}>") or _is_term_of(iri, name):
            return iri
    try:
        return f"<{BASE}{quote(name, safe='')}>"
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name[:80]!r} contains half a surrogate pair, which UTF-8 cannot write; correct it"
        ) from error


def _is_term_of(node: str, name: str) -> bool:
    """Whether a text is a term of N-Triples that reads as the given name."""
    try:
        quads = parse_ntriples(f"{node} <a:a> <a:a> .".encode())
    except (SyntaxError, UnicodeEncodeError, MemoryError):
        # MemoryError: the text is longer than pyoxigraph reads.
        return False
    return len(quads) == 1 and statement(quads[0])[0] == name
