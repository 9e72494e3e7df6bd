"""Download files: interrupted downloads are resumed, and a file appears only when verified."""

from __future__ import annotations

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

from mocme.core.digest import file_digest

# Called with the bytes received and the size of the file (None if the server does not state it).
Advance = Callable[[int, int | None], object]

LIMIT = 1 << 30
CHUNK = 1 << 16
REDIRECTS = 5
LONGEST_PAUSE = 60.0
REDIRECT_CODES = (301, 302, 303, 307, 308)
TEMPORARY_CODES = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Received:
    """A completed download; `url` is the address after all redirects."""

    url: str
    bytes: int
    sha256: str


class WrongChecksum(ValueError):
    """A file does not have the expected checksum; the message names it and both checksums."""


class _Interrupted(Exception):
    """A temporary failure; `pause` is how long the server asks to wait, in seconds."""

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

    Until it is complete and verified, it is stored as ``NAME.part``, with the data needed to resume
    it in ``NAME.part.json``. The next call resumes it if the server confirms by ETag or date that
    the file is unchanged. A server that does not support ranges, or whose file has changed, sends
    the whole file.

    Args:
        url: ``https://...``; ``http://...`` on this machine only.
        sha256: the required checksum. An existing file with this checksum is not downloaded again.
        size: the required size in bytes.
        limit: the maximum size in bytes.
        timeout: seconds without data after which an attempt fails.
        tries: the maximum number of attempts.
        pause: seconds before the second attempt; doubled before each further one.
        advance: receives the progress.

    Raises:
        WrongChecksum: the file has another checksum; it is kept next to `path` as ``NAME.wrong``.
        ValueError: any other failure, with the remedy.
    """
    path = Path(path)
    _check_address(url)
    if sha256 is not None and path.is_file() and file_digest(path) == sha256:
        return Received(url, path.stat().st_size, sha256)
    part = _Part(path, url, size, limit)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    for attempt in range(1, tries + 1):
        try:
            final_url = _attempt(part, timeout, advance)
            break
        except _Interrupted as failure:
            if attempt == tries:
                raise ValueError(
                    f"{url}: {failure}; tried {tries} times; try again later, it resumes at "
                    f"{part.size_so_far:,} bytes"
                ) from failure
            time.sleep(max(pause * 2 ** (attempt - 1), failure.pause))
    return part.accept(final_url, sha256)


class _Part:
    """An incomplete file, with a note on the content that it is the beginning of."""

    def __init__(self, path: Path, url: str, size: int | None, limit: int) -> None:
        self.path, self.url, self.size, self.limit = path, url, size, limit
        self.file = path.with_name(f"{path.name}.part")
        self.note = path.with_name(f"{path.name}.part.json")

    @property
    def size_so_far(self) -> int:
        return self.file.stat().st_size if self.file.is_file() else 0

    def validator(self) -> str | None:
        """The ETag or date of the content that this is the beginning of, if it can be resumed."""
        try:
            note = json.loads(self.note.read_bytes())
            validator = note["validator"] if note["url"] == self.url else None
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return validator if isinstance(validator, str) and self.size_so_far else None

    def start(self, validator: str | None) -> None:
        """Start from the beginning."""
        self.discard()
        try:
            self.file.touch()
            if validator is not None:
                self.note.write_text(json.dumps({"url": self.url, "validator": validator}))
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def discard(self) -> None:
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def check_size(self, total: int | None) -> None:
        """Refuse a file whose size is over the limit or not the required one.

        Args:
            total: bytes of the file; None if unknown.
        """
        if total is None:
            return
        if total > self.limit:
            self.discard()
            raise ValueError(
                f"{self.url}: has {total:,} bytes or more, over the limit of {self.limit:,}; "
                f"it is not the expected file, check the address"
            )
        if self.size is not None and total != self.size:
            self.discard()
            raise ValueError(
                f"{self.url}: has {total:,} bytes where {self.size:,} are expected; the file "
                f"has changed, check the address"
            )

    def accept(self, url: str, sha256: str | None) -> Received:
        """Move the complete file to its path if it has the required checksum.

        Raises:
            WrongChecksum: it has another one.
        """
        digest = file_digest(self.file)
        if sha256 is not None and digest != sha256:
            wrong = self.path.with_name(f"{self.path.name}.wrong")
            os.replace(self.file, wrong)
            self.note.unlink(missing_ok=True)
            raise WrongChecksum(
                f"{self.url}: the file has SHA-256 {digest}, but {sha256} is expected; it is kept "
                f"as {wrong}; compare it, then try again or check the address"
            )
        size = self.size_so_far
        with self.file.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self.file, self.path)
        self.note.unlink(missing_ok=True)
        return Received(url, size, digest)


def _attempt(part: _Part, timeout: float, advance: Advance | None) -> str:
    """Request the file, or the rest of it, once; return the address that answered.

    Raises:
        _Interrupted: another attempt may succeed.
        ValueError: no other attempt can succeed.
    """
    validator = part.validator()
    headers = {"Accept-Encoding": "identity", "User-Agent": "mocme"}
    if validator is not None:
        headers |= {"Range": f"bytes={part.size_so_far}-", "If-Range": validator}
    with _request(part.url, headers, timeout) as response:
        if isinstance(response, urllib.error.HTTPError):
            # 416: there is nothing after the requested offset, so the part may be complete.
            if _total_size(response.headers) == part.size_so_far:
                return response.url
            part.discard()
            raise _Interrupted("the server does not have the rest of the partial file")
        offset = _offset(response, part)
        length = response.headers.get("Content-Length", "")
        total = offset + int(length) if length.isdecimal() else None
        part.check_size(total)
        if not offset:
            part.start(_validator(response.headers))
        _receive(response, part, total, advance)
        part.check_size(part.size_so_far)
        return response.url


def _offset(response: HTTPResponse, part: _Part) -> int:
    """The offset in the file at which the content of a response starts."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise ValueError(
            f"{part.url}: the content is encoded as {encoding}, which was not requested; use "
            f"another address"
        )
    if response.status == 200:
        return 0
    span = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", span)
    if response.status != 206 or match is None or int(match[1]) != part.size_so_far:
        part.discard()
        raise _Interrupted(
            f"the server sent another part ({response.status} {span!r}) than requested"
        )
    return part.size_so_far


def _receive(
    response: HTTPResponse, part: _Part, total: int | None, advance: Advance | None
) -> None:
    """Append the content of a response to the part."""
    done = part.size_so_far
    try:
        file = part.file.open("ab")
    except OSError as error:
        raise _cannot_write(part.path, error) from error
    with file:
        while True:
            try:
                data = response.read1(CHUNK)
            except (OSError, HTTPException) as error:
                raise _Interrupted(_failure(error)) from error
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
                advance(done, total)
    part.check_size(done if done > part.limit else None)
    if total is not None and done < total:
        raise _Interrupted(f"the connection ended after {done:,} of {total:,} bytes")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to the caller, which checks their addresses."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _request(
    url: str, headers: dict[str, str], timeout: float
) -> HTTPResponse | urllib.error.HTTPError:
    """The response of a server after redirects; of all errors, only 416 is returned.

    Raises:
        _Interrupted: another attempt may succeed.
        ValueError: the server refuses, its certificate is invalid, or a redirect leads to an
            address that is not allowed.
    """
    requested = url
    for _ in range(REDIRECTS + 1):
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if _is_local(url):
            handlers.append(urllib.request.ProxyHandler({}))
        opener = urllib.request.build_opener(*handlers)
        try:
            response: HTTPResponse = opener.open(
                urllib.request.Request(url, headers=headers), timeout=timeout
            )
            return response
        except urllib.error.HTTPError as error:
            if error.code == 416:
                return error
            with error:
                url = _redirect_target(error, requested, url)
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise ValueError(
                    f"{url}: the server's certificate is not valid ({error.reason.verify_message});"
                    f" check the clock of this machine and the proxies of its network"
                ) from error
            raise _Interrupted(_failure(error.reason)) from error
        except (OSError, HTTPException) as error:
            raise _Interrupted(_failure(error)) from error
    raise ValueError(f"{requested}: redirected more than {REDIRECTS} times; check the address")


def _redirect_target(error: urllib.error.HTTPError, requested: str, url: str) -> str:
    """The address that a redirect leads to.

    Args:
        requested: the first address, which errors name; `url`: the one that answered.

    Raises:
        _Interrupted, ValueError: the response is not a redirect but a refusal.
    """
    if error.code in REDIRECT_CODES and (target := error.headers.get("Location")):
        target = urljoin(url, target)
        _check_address(target, before=url)
        return target
    if error.code in TEMPORARY_CODES:
        wait = error.headers.get("Retry-After", "")
        pause = min(float(wait), LONGEST_PAUSE) if wait.isdecimal() else 0.0
        raise _Interrupted(f"the server answers {error.code} ({error.reason})", pause)
    if error.code in (404, 410):
        remedy = "the file is no longer there; find its new address, or use another version"
    elif error.code in (401, 403, 407, 451):
        remedy = "the server denies access; download it by hand if you are permitted to"
    else:
        remedy = "check the address"
    raise ValueError(f"{requested}: the server answers {error.code} ({error.reason}); {remedy}")


def _check_address(url: str, before: str | None = None) -> None:
    """Allow https, and http on this machine, but no redirect from https to http.

    Args:
        before: the address that redirects to `url`.

    Raises:
        ValueError: the address is invalid or not allowed; with the one that led there.
    """
    what = f"{before}: leads to {url!r}, which" if before else repr(url)
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"{what} is not an address ({error}); write https://HOST/FILE") from error
    if not host or any(c.isspace() or ord(c) < 33 for c in url):
        raise ValueError(f"{what} is not an address; write https://HOST/FILE")
    was_secure = before is not None and urlsplit(before).scheme == "https"
    if scheme == "https" or (scheme == "http" and _is_local(url) and not was_secure):
        return
    raise ValueError(
        f"{what} is not https; it is not read, because its content could be changed in transit"
    )


def _is_local(url: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _validator(headers: Message) -> str | None:
    """The value for If-Range that identifies the content: a strong ETag, or else the date."""
    tag: str | None = headers.get("ETag")
    if tag is not None:
        return tag if tag.startswith('"') else None
    date: str | None = headers.get("Last-Modified")
    return date


def _total_size(headers: Message) -> int | None:
    """The size of the file, from the Content-Range of a 416 response."""
    match = re.fullmatch(r"bytes \*/(\d+)", headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _failure(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "the server sent nothing for too long"
    reason = getattr(error, "strerror", None) or repr(error)
    return f"the connection failed ({reason})"


def _cannot_write(path: Path, error: OSError) -> ValueError:
    return ValueError(
        f"{path}: cannot be written ({error.strerror}); free space or choose another folder"
    )
