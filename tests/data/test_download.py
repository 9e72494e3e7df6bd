"""Downloads are complete and verified, or fail with the reason; from a server on this machine."""

from __future__ import annotations

import hashlib
import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mocme.data.benchmarks.download import REDIRECTS, _check_address, download
from servers import Server, running_server

DATA = random.Random(0).randbytes(300_000)
SUM = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.files.clear()
    running.requests.clear()
    return running


def get(server: Server, path: Path, name: str = "file", **settings: Any) -> Any:
    settings = {"pause": 0.0, "timeout": 10.0, **settings}
    return download(server.url(name), path, **settings)


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_arrives(server: Server, tmp_path: Path) -> None:
    server.put("file", DATA)
    seen: list[tuple[int, int | None]] = []
    received = get(
        server,
        tmp_path / "deep" / "x",
        sha256=SUM,
        size=len(DATA),
        advance=lambda *n: seen.append(n),
    )
    assert (received.url, received.bytes, received.sha256) == (server.url("file"), len(DATA), SUM)
    assert (tmp_path / "deep" / "x").read_bytes() == DATA
    assert left(tmp_path / "deep") == {"x"}
    assert seen[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    get(server, tmp_path / "deep" / "x", sha256=SUM)
    assert len(server.requests) == 1  # an existing file with this checksum is not requested again


def test_an_empty_file_and_one_without_a_length_arrive(server: Server, tmp_path: Path) -> None:
    server.put("file", b"")
    server.put("long", DATA, sends_length=False)
    assert get(server, tmp_path / "x").bytes == 0
    seen: list[tuple[int, int | None]] = []
    assert get(server, tmp_path / "y", "long", advance=lambda *n: seen.append(n)).sha256 == SUM
    assert seen[-1] == (len(DATA), None)


def test_an_interrupted_download_is_resumed(server: Server, tmp_path: Path) -> None:
    server.put("file", DATA, breaks=[100_000, 50_000])
    assert get(server, tmp_path / "x").sha256 == SUM
    ranges = [headers.get("range") for _, headers in server.requests]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert server.requests[1][1]["if-range"] == server.files["file"].etag()
    assert left(tmp_path) == {"x"}


def test_it_is_resumed_by_the_next_call(server: Server, tmp_path: Path) -> None:
    server.put("file", DATA, breaks=[100_000, 0])
    with pytest.raises(ValueError, match=r"ended after 100,000 of 300,000 bytes; tried 2 times"):
        get(server, tmp_path / "x", tries=2)
    assert left(tmp_path) == {"x.part", "x.part.json"}
    assert get(server, tmp_path / "x").sha256 == SUM
    assert server.requests[-1][1]["range"] == "bytes=100000-"


def test_it_is_resumed_by_date_without_a_strong_tag(server: Server, tmp_path: Path) -> None:
    date = "Sun, 01 Nov 2020 10:00:00 GMT"
    server.put("file", DATA, breaks=[100_000], tag=None, date=date)
    assert get(server, tmp_path / "x").sha256 == SUM
    assert server.requests[1][1]["if-range"] == date
    # Equal weak tags do not promise equal bytes.
    server.put("weak", DATA, breaks=[100_000], tag='W/"1"', date=date)
    assert get(server, tmp_path / "y", "weak").sha256 == SUM
    assert "range" not in server.requests[-1][1]


def test_without_tag_and_date_it_starts_again(server: Server, tmp_path: Path) -> None:
    server.put("file", DATA, breaks=[100_000], tag=None)
    assert get(server, tmp_path / "x").sha256 == SUM
    assert "range" not in server.requests[-1][1]


def test_a_server_that_ignores_ranges_sends_the_whole(server: Server, tmp_path: Path) -> None:
    server.put("file", DATA, breaks=[100_000], ranges=False)
    assert get(server, tmp_path / "x").sha256 == SUM
    assert server.requests[1][1]["range"] == "bytes=100000-"


def test_a_file_that_changed_is_not_mixed(server: Server, tmp_path: Path) -> None:
    server.put("file", b"old" * 100_000, breaks=[100_000])
    with pytest.raises(ValueError, match="tried 1 times"):
        get(server, tmp_path / "x", tries=1)
    server.put("file", DATA)
    assert get(server, tmp_path / "x").sha256 == SUM
    assert server.requests[-1][1]["range"] == "bytes=100000-"


def test_a_part_from_another_address_is_not_resumed(server: Server, tmp_path: Path) -> None:
    server.put("other", b"old" * 100_000, breaks=[100_000], tag='"same"')
    with pytest.raises(ValueError, match="tried"):
        get(server, tmp_path / "x", "other", tries=1)
    server.put("file", DATA, tag='"same"')
    assert get(server, tmp_path / "x").sha256 == SUM


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"url": 1}', b'{"url": "x"}', b"\xff"])
def test_with_a_damaged_note_it_starts_again(server: Server, tmp_path: Path, note: bytes) -> None:
    server.put("file", DATA)
    (tmp_path / "x.part").write_bytes(b"rubbish")
    (tmp_path / "x.part.json").write_bytes(note)
    assert get(server, tmp_path / "x", sha256=SUM).bytes == len(DATA)


def test_a_part_that_is_already_complete(server: Server, tmp_path: Path) -> None:
    served = server.put("file", DATA)
    noted = {"url": server.url("file"), "validator": served.etag()}
    (tmp_path / "x.part.json").write_text(json.dumps(noted))
    (tmp_path / "x.part").write_bytes(DATA)
    assert get(server, tmp_path / "x").sha256 == SUM
    # Longer than the file, so it must start again.
    (tmp_path / "y.part.json").write_text(json.dumps(noted))
    (tmp_path / "y.part").write_bytes(DATA + b"more")
    assert get(server, tmp_path / "y").sha256 == SUM


def test_a_part_that_was_not_requested_is_not_appended(server: Server, tmp_path: Path) -> None:
    served = server.put("file", DATA, breaks=[100_000], wrong_start=7)
    assert get(server, tmp_path / "x", sha256=SUM).bytes == len(DATA)
    assert len(server.requests) == 3
    assert served.breaks == []


def test_a_file_with_a_wrong_checksum_is_kept(server: Server, tmp_path: Path) -> None:
    server.put("file", b"other")
    digest = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(ValueError, match=f"SHA-256 {digest}, but {SUM} is expected.*x.wrong"):
        get(server, tmp_path / "x", sha256=SUM)
    assert left(tmp_path) == {"x.wrong"}
    assert (tmp_path / "x.wrong").read_bytes() == b"other"
    server.put("file", DATA)
    assert get(server, tmp_path / "x", sha256=SUM).sha256 == SUM


def test_a_good_file_survives_a_bad_download(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"mine")
    server.put("file", b"other")
    with pytest.raises(ValueError, match="SHA-256"):
        get(server, tmp_path / "x", sha256=SUM)
    assert (tmp_path / "x").read_bytes() == b"mine"


def test_redirects_are_followed_up_to_a_limit(server: Server, tmp_path: Path) -> None:
    for hop in range(REDIRECTS + 1):
        target = f"/hop{hop + 1}" if hop < REDIRECTS else "/file"
        server.put(f"hop{hop}", statuses=[302] * 9, headers={"Location": target})
    server.put("file", DATA)
    assert get(server, tmp_path / "x", "hop1").url == server.url("file")
    with pytest.raises(ValueError, match=rf"hop0: redirected more than {REDIRECTS} times"):
        get(server, tmp_path / "y", "hop0")
    server.put("loop", statuses=[301] * 20, headers={"Location": "/loop"})
    with pytest.raises(ValueError, match="redirected more than"):
        get(server, tmp_path / "y", "loop")
    assert left(tmp_path) == {"x"}


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "data:text/plain,x",
        "http://192.0.2.1/x",
        "http://127.0.0.1.example/x",
        "//192.0.2.1/x",
    ],
)
def test_redirects_elsewhere_are_refused(server: Server, tmp_path: Path, target: str) -> None:
    server.put("file", statuses=[302], headers={"Location": target})
    with pytest.raises(ValueError, match=r"leads to '.*', which is (not https|not an address)"):
        get(server, tmp_path / "x")
    assert left(tmp_path) == set()


def test_https_never_becomes_http() -> None:
    _check_address("https://a.example/x", before="http://127.0.0.1/x")
    _check_address("http://localhost:80/x", before="http://[::1]/x")
    for target in ("http://a.example/x", "http://127.0.0.1/x"):
        with pytest.raises(ValueError, match="not https"):
            _check_address(target, before="https://a.example/x")
    for address in (
        "a.example/x",
        "https://",
        "https://a.example/\n",
        "https://[x/",
        "http://a:b/",
    ):
        with pytest.raises(ValueError, match="is not an address"):
            _check_address(address)
    with pytest.raises(ValueError, match="is not https"):
        _check_address("http://a.example/x")


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(404, "no longer there"), (410, "no longer there"), (403, "by hand"), (400, "the address")],
)
def test_a_refusal_is_not_retried(server: Server, tmp_path: Path, status: int, remedy: str) -> None:
    server.put("file", DATA, statuses=[status])
    with pytest.raises(ValueError, match=f"file: the server answers {status} .*{remedy}"):
        get(server, tmp_path / "x")
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_temporary_failure_is_retried(server: Server, tmp_path: Path, status: int) -> None:
    server.put("file", DATA, statuses=[status, status], headers={"Retry-After": "0"})
    assert get(server, tmp_path / "x", tries=3).sha256 == SUM
    server.put("file", DATA, statuses=[status] * 3)
    with pytest.raises(ValueError, match=f"answers {status} .*; tried 3 times; try again later"):
        get(server, tmp_path / "y", tries=3)


def test_pauses_grow_and_follow_the_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    server.put("file", DATA, statuses=[500] * 3)
    get(server, tmp_path / "x", pause=0.5)
    server.put("file", DATA, statuses=[503], headers={"Retry-After": "7"})
    get(server, tmp_path / "y", pause=0.5)
    server.put("file", DATA, statuses=[503], headers={"Retry-After": "99999"})
    get(server, tmp_path / "z", pause=0.5)
    assert slept == [0.5, 1.0, 2.0, 7.0, 60.0]


def test_a_request_to_a_slow_server_is_repeated(server: Server, tmp_path: Path) -> None:
    server.put("file", DATA, waits=[30.0])
    assert get(server, tmp_path / "x", timeout=0.1).sha256 == SUM
    server.put("file", DATA, waits=[30.0, 30.0])
    with pytest.raises(ValueError, match="sent nothing for too long; tried 2 times"):
        get(server, tmp_path / "y", timeout=0.1, tries=2)


def test_no_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ValueError, match=r"connection failed \(Connection refused\); tried 2"):
        download(f"http://127.0.0.1:{port}/x", tmp_path / "x", tries=2, pause=0.0)


def test_a_stated_length_that_is_wrong(server: Server, tmp_path: Path) -> None:
    server.put("long", DATA, length=len(DATA) + 5, tag=None)
    with pytest.raises(ValueError, match=r"ended after 300,000 of 300,005 bytes"):
        get(server, tmp_path / "x", "long", tries=2)
    server.put("short", DATA, length=len(DATA) - 5)
    with pytest.raises(ValueError, match=r"has 299,995 bytes where 300,000 are expected"):
        get(server, tmp_path / "x", "short", size=len(DATA))
    with pytest.raises(ValueError, match="SHA-256"):
        get(server, tmp_path / "x", "short", sha256=SUM)
    assert not (tmp_path / "x").exists()


def test_a_file_that_is_too_large_is_refused_early(server: Server, tmp_path: Path) -> None:
    server.put("file", DATA)
    server.put("long", DATA, sends_length=False)
    seen: list[int] = []
    with pytest.raises(ValueError, match="has 300,000 bytes or more, over the limit of 200,000"):
        get(server, tmp_path / "x", limit=200_000, advance=lambda *n: seen.append(n[0]))
    assert seen == []
    with pytest.raises(ValueError, match="over the limit of 200,000"):
        get(server, tmp_path / "x", "long", limit=200_000, advance=lambda *n: seen.append(n[0]))
    assert max(seen) <= 200_000
    assert left(tmp_path) == set()


def test_encoded_content_is_refused(server: Server, tmp_path: Path) -> None:
    server.put("file", DATA, headers={"Content-Encoding": "gzip"})
    with pytest.raises(ValueError, match="the content is encoded as gzip"):
        get(server, tmp_path / "x")


def test_an_unwritable_path_is_an_error(server: Server, tmp_path: Path) -> None:
    server.put("file", DATA)
    (tmp_path / "taken").write_text("")
    with pytest.raises(ValueError, match=r"taken/x: cannot be written"):
        get(server, tmp_path / "taken" / "x")


@pytest.mark.parametrize("seed", range(12))
def test_the_file_is_always_the_served_one(server: Server, tmp_path: Path, seed: int) -> None:
    """Broken connections, changed files, other addresses, servers without ranges: never a mix."""
    source = random.Random(seed)
    versions = [source.randbytes(source.randint(1, 3000)) for _ in range(3)]
    for _ in range(8):
        served = source.choice(versions)
        name = source.choice(["one", "two"])
        server.put(
            name,
            served,
            ranges=source.random() < 0.7,
            tag=source.choice(["content", "content", None]),
            breaks=[source.randrange(len(served)) for _ in range(source.randint(0, 2))],
            statuses=[500] * source.randint(0, 1),
            sends_length=True,
        )
        failed = None
        try:
            get(server, tmp_path / "x", name, tries=source.randint(1, 3))
        except ValueError as error:
            failed = str(error)
        assert "tried" in failed if failed else (tmp_path / "x").read_bytes() == served
