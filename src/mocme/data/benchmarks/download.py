"""Files from the network: resumed where they broke off, checked before they count as there."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

# Called with the bytes that are here and those that the whole has (None where nobody said).
Advance = Callable[[int, int | None], object]

LIMIT = 1 << 30
PIECE = 1 << 16
REDIRECTS = 5
LONGEST_PAUSE = 60.0
MOVED = (301, 302, 303, 307, 308)
PASSING = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Received:
    """What a download brought: the address that answered in the end, and what came from there."""

    url: str
    bytes: int
    sha256: str


class WrongChecksum(ValueError):
    """A file is not the one that was expected; the message names it and both checksums."""


class _Interrupted(Exception):
    """Trouble that may be gone at the next try."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


def download(
    url: str,
    path: str | Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    limit: int = LIMIT,
    timeout: float = 30.0,
    tries: int = 4,
    pause: float = 1.0,
    advance: Advance | None = None,
) -> Received:
    """Download a file.

    Until it is whole and checked it lies in ``NAME.part``, with what is needed to go on
    (``NAME.part.json``); the next call goes on there, provided that the server says by its ETag
    or date that the file is still the same. A server that cannot send a part sends the whole, and
    so does one whose file changed.

    Args:
        url: ``https://...``; ``http://...`` on this machine only.
        sha256: that the file must have. A file that is there already and has it is left alone.
        size: bytes that it must have.
        limit: bytes that it may have at most.
        timeout: seconds without a byte after which a try is given up.
        tries: how often the server is asked at most.
        pause: seconds before the second try; doubled before each further one.
        advance: told of the progress.

    Raises:
        WrongChecksum: the file has another one; it is kept beside `path` as ``NAME.wrong``.
        ValueError: what else went wrong, and what to do.
    """
    path = Path(path)
    _check_address(url)
    if sha256 is not None and path.is_file() and _digest(path) == sha256:
        return Received(url, path.stat().st_size, sha256)
    part = _Part(path, url, size, limit)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    for attempt in range(1, tries + 1):
        try:
            final = _attempt(part, timeout, advance)
            break
        except _Interrupted as trouble:
            if attempt == tries:
                raise ValueError(
                    f"{url}: {trouble}; tried {tries} times; try again later, it goes on at "
                    f"{part.have:,} bytes"
                ) from trouble
            time.sleep(max(pause * 2 ** (attempt - 1), trouble.pause))
    return part.accept(final, sha256)


class _Part:
    """A file that is not whole yet, and what it is the beginning of."""

    def __init__(self, path: Path, url: str, size: int | None, limit: int) -> None:
        self.path, self.url, self.size, self.limit = path, url, size, limit
        self.file = path.with_name(f"{path.name}.part")
        self.note = path.with_name(f"{path.name}.part.json")

    @property
    def have(self) -> int:
        return self.file.stat().st_size if self.file.is_file() else 0

    def same(self) -> str | None:
        """What the server calls the content that this is the beginning of, where it said."""
        try:
            noted = json.loads(self.note.read_bytes())
            known = noted["validator"] if noted["url"] == self.url else None
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return known if isinstance(known, str) and self.have else None

    def start(self, validator: str | None) -> None:
        """Begin anew."""
        self.drop()
        try:
            self.file.touch()
            if validator is not None:
                self.note.write_text(json.dumps({"url": self.url, "validator": validator}))
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def drop(self) -> None:
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def check_size(self, whole: int | None) -> None:
        """Refuse what is too long or of another length than asked for, before it is here."""
        if whole is None:
            return
        if whole > self.limit:
            self.drop()
            raise ValueError(
                f"{self.url}: has {whole:,} bytes or more, over the limit of {self.limit:,}; "
                f"it is not what was expected there, check the address"
            )
        if self.size is not None and whole != self.size:
            self.drop()
            raise ValueError(
                f"{self.url}: has {whole:,} bytes where {self.size:,} are expected; the file "
                f"there has changed, check the address"
            )

    def accept(self, url: str, sha256: str | None) -> Received:
        """Put the file in its place once it is what was asked for."""
        found = _digest(self.file)
        if sha256 is not None and found != sha256:
            aside = self.path.with_name(f"{self.path.name}.wrong")
            os.replace(self.file, aside)
            self.note.unlink(missing_ok=True)
            raise WrongChecksum(
                f"{self.url}: the file has SHA-256 {found}, but {sha256} is expected; it is kept "
                f"as {aside}; compare it, then try again or check the address"
            )
        count = self.have
        with self.file.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self.file, self.path)
        self.note.unlink(missing_ok=True)
        return Received(url, count, found)


def _attempt(part: _Part, timeout: float, advance: Advance | None) -> str:
    """Ask once; returns the address that answered.

    Raises:
        _Interrupted: another try may help.
        ValueError: none would.
    """
    validator = part.same()
    headers = {"Accept-Encoding": "identity", "User-Agent": "mocme"}
    if validator is not None:
        headers |= {"Range": f"bytes={part.have}-", "If-Range": validator}
    with _ask(part.url, headers, timeout) as answer:
        if isinstance(answer, urllib.error.HTTPError):
            if _whole_of(answer.headers) == part.have:
                return answer.url
            part.drop()
            raise _Interrupted("the server does not have the rest of the part that is here")
        begins = _begins(answer, part)
        length = answer.headers.get("Content-Length", "")
        whole = begins + int(length) if length.isdecimal() else None
        part.check_size(whole)
        if not begins:
            part.start(_validator(answer.headers))
        _receive(answer, part, whole, advance)
        part.check_size(part.have)
        return answer.url


def _begins(answer: HTTPResponse, part: _Part) -> int:
    """The byte that an answer begins with."""
    packed = answer.headers.get("Content-Encoding", "identity")
    if packed != "identity":
        raise ValueError(f"{part.url}: comes packed by {packed}, unasked; use another address")
    if answer.status == 200:
        return 0
    span = answer.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", span)
    if answer.status != 206 or match is None or int(match[1]) != part.have:
        part.drop()
        raise _Interrupted(f"the server sent another part ({answer.status} {span!r}) than asked")
    return part.have


def _receive(answer: HTTPResponse, part: _Part, whole: int | None, advance: Advance | None) -> None:
    """Append what comes to the part."""
    done = part.have
    try:
        file = part.file.open("ab")
    except OSError as error:
        raise _cannot_write(part.path, error) from error
    with file:
        while True:
            try:
                data = answer.read1(PIECE)
            except (OSError, HTTPException) as error:
                raise _Interrupted(_said(error)) from error
            if not data:
                break
            done += len(data)
            if done > part.limit:
                break
            try:
                file.write(data)
            except OSError as error:
                raise _cannot_write(part.path, error) from error
            if advance is not None:
                advance(done, whole)
    part.check_size(done if done > part.limit else None)
    if whole is not None and done < whole:
        raise _Interrupted(f"the connection ended after {done:,} of {whole:,} bytes")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves it to the caller to follow a redirect."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _ask(
    url: str, headers: dict[str, str], timeout: float
) -> HTTPResponse | urllib.error.HTTPError:
    """The answer of a server; redirects are followed. Of all errors only 416 is an answer."""
    asked = url
    for _ in range(REDIRECTS + 1):
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if _is_here(url):
            handlers.append(urllib.request.ProxyHandler({}))
        opener = urllib.request.build_opener(*handlers)
        try:
            answer: HTTPResponse = opener.open(
                urllib.request.Request(url, headers=headers), timeout=timeout
            )
            return answer
        except urllib.error.HTTPError as error:
            if error.code == 416:
                return error
            with error:
                url = _moved(error, asked, url)
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise ValueError(
                    f"{url}: the server's certificate is not valid ({error.reason.verify_message});"
                    f" check the clock of this machine and what its network puts in between"
                ) from error
            raise _Interrupted(_said(error.reason)) from error
        except (OSError, HTTPException) as error:
            raise _Interrupted(_said(error)) from error
    raise ValueError(f"{asked}: redirected more than {REDIRECTS} times; check the address")


def _moved(error: urllib.error.HTTPError, asked: str, url: str) -> str:
    """Where a redirect leads; every other refusal of a server is an error."""
    if error.code in MOVED and (target := error.headers.get("Location")):
        target = urljoin(url, target)
        _check_address(target, before=url)
        return target
    if error.code in PASSING:
        wait = error.headers.get("Retry-After", "")
        pause = min(float(wait), LONGEST_PAUSE) if wait.isdecimal() else 0.0
        raise _Interrupted(f"the server answers {error.code} ({error.reason})", pause)
    if error.code in (404, 410):
        remedy = "the file is no longer there; look for its new place, or use another version"
    elif error.code in (401, 403, 407, 451):
        remedy = "the server does not give it out; download it by hand as you are allowed to"
    else:
        remedy = "check the address"
    raise ValueError(f"{asked}: the server answers {error.code} ({error.reason}); {remedy}")


def _check_address(url: str, before: str | None = None) -> None:
    """Refuse what is neither https nor http on this machine; https stays https.

    Raises:
        ValueError: naming the address, and the one that led there.
    """
    what = f"{before}: leads to {url!r}, which" if before else repr(url)
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"{what} is no address ({error}); write https://HOST/FILE") from error
    if not host or any(c.isspace() or ord(c) < 33 for c in url):
        raise ValueError(f"{what} is no address; write https://HOST/FILE")
    was_secure = before is not None and urlsplit(before).scheme == "https"
    if scheme == "https" or (scheme == "http" and _is_here(url) and not was_secure):
        return
    raise ValueError(
        f"{what} is not https; nothing is read from there, because it could be changed on its way"
    )


def _is_here(url: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _validator(headers: Message) -> str | None:
    """What tells by If-Range that a file is still the same: a strong ETag, or else its date."""
    tag: str | None = headers.get("ETag")
    if tag is not None:
        return tag if tag.startswith('"') else None
    date: str | None = headers.get("Last-Modified")
    return date


def _whole_of(headers: Message) -> int | None:
    match = re.fullmatch(r"bytes \*/(\d+)", headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _said(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "the server sent nothing for too long"
    reason = getattr(error, "strerror", None) or repr(error)
    return f"the connection failed ({reason})"


def _cannot_write(path: Path, error: OSError) -> ValueError:
    return ValueError(f"{path}: cannot be written ({error.strerror}); make room or choose a place")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
