import pytest

from utilities.addresses import (
    dialable,
    only_here,
    origin,
    parse_address,
    place,
    plain,
    public,
)
from utilities.errors import NetworkError

GOOD = [
    ("lab-host", ("lab-host", 55551)),
    ("lab_host.example.org:80", ("lab_host.example.org", 80)),
    ("10.0.0.7", ("10.0.0.7", 55551)),
    ("10.0.0.7:1", ("10.0.0.7", 1)),
    ("10.0.0.7:65535", ("10.0.0.7", 65535)),
    ("müsli.example:00080", ("müsli.example", 80)),
    ("::1", ("::1", 55551)),
    ("::", ("::", 55551)),
    ("2001:db8::7", ("2001:db8::7", 55551)),
    ("::ffff:10.0.0.7", ("::ffff:10.0.0.7", 55551)),
    ("fe80::1%eth0.2", ("fe80::1%eth0.2", 55551)),
    ("[::1]", ("::1", 55551)),
    ("[2001:db8::7]:80", ("2001:db8::7", 80)),
    ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
]
BAD = [
    *("", ":", ":80", "host:", "host:port", "host:0", "host:65536", "host:-1"),
    *("host:999999", "host:1:2", "host:٣", "ho st", "host ", "user@host"),
    *("http://host:80", "host/path", "[]", "[]:80", "[::1", "::1]", "[::1]80"),
    *("[::1]:", "[::1]:x", "[host]:80", "[1.2.3.4]:80", "fe80::1%", "fe80::1% 2"),
    *("host:" + "9" * 5000,),
]


@pytest.mark.parametrize(("text", "expected"), GOOD)
def test_an_address_is_read_in_each_usual_spelling(
    text: str, expected: tuple[str, int]
) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_address_is_refused_and_quoted(text: str) -> None:
    with pytest.raises(NetworkError, match="expected HOST or HOST:PORT") as caught:
        parse_address(text)
    assert str(caught.value).endswith(f"got {text}")


def test_a_port_alone_is_told_from_an_address() -> None:
    with pytest.raises(NetworkError, match=r"this machine is 127\.0\.0\.1:55551$"):
        parse_address("55551")


def test_a_port_that_is_left_out_is_the_one_given() -> None:
    assert parse_address("host", 7) == ("host", 7)
    assert parse_address("host:8", 7) == ("host", 8)


@pytest.mark.parametrize("host", ["lab-host", "10.0.0.7", "2001:db8::7"])
def test_what_is_written_down_reads_back(host: str) -> None:
    assert parse_address(place(host, 80)) == (host, 80)


@pytest.mark.parametrize(
    ("host", "dialled"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("*", "127.0.0.1"),
        ("::", "::1"),
        ("10.0.0.7", "10.0.0.7"),
        ("localhost", "localhost"),
    ],
)
def test_a_server_that_listens_on_all_addresses_is_dialled_at_the_local_one(
    host: str, dialled: str
) -> None:
    assert dialable(host) == dialled


@pytest.mark.parametrize(
    ("host", "only"),
    [
        *[("127.0.0.1", True), ("127.8.0.1", True), ("::1", True), ("localhost", True)],
        *[("0.0.0.0", False), ("::", False), ("", False), ("10.0.0.127", False)],
        ("*", False),
    ],
)
def test_loopback_addresses_are_for_this_machine_only(host: str, only: bool) -> None:
    assert only_here(host) is only


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("::ffff:192.168.1.5", "192.168.1.5"),
        ("192.168.1.5", "192.168.1.5"),
        ("2001:db8::7", "2001:db8::7"),
        ("::1", "::1"),
    ],
)
def test_addresses_of_ipv4_are_told_as_such(host: str, expected: str) -> None:
    assert plain(host) == expected


def test_connections_are_counted_by_machine() -> None:
    assert origin("10.0.0.7") == "10.0.0.7"
    near = origin("2001:db8::ffff:1:2:3")
    assert origin("2001:db8::7") == near == "2001:0db8:0000:0000"
    assert origin("2001:db8:0:1::7") != origin("2001:db8::7")
    assert origin("fe80::1%eth0") == "fe80:0000:0000:0000"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *[("8.8.8.8", True), ("2600::1", True), ("192.168.1.5", False)],
        *[("10.0.0.1", False), ("127.0.0.1", False), ("fe80::1%eth0", False)],
        *[("lab", False), ("<this machine's address>", False)],
    ],
)
def test_addresses_of_the_internet_are_known(host: str, expected: bool) -> None:
    assert public(host) is expected
