"""URLs that we fetch: whatever is written, it is refused in one sentence, or goes to the host that everyone reads in it."""

from __future__ import annotations

import ipaddress

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from signalwarden.errors import FeedError
from signalwarden.outbound import fetching, targets

generated = settings(max_examples=2_000, deadline=None, database=None)

schemes = st.sampled_from(["https://", "http://", "HTTPS://", "https:/", "https:", "//", "ftp://", ""])
users = st.sampled_from(["", "", "", "a@", "a:b@", "@", "127.0.0.1@", "localhost:1@", "a%40"])
hosts = st.one_of(
    st.sampled_from(
        [
            "feed.example",
            "localhost",
            "LOCALHOST",
            "127.0.0.1",
            "127.1",
            "[::1]",
            "::1",
            "[::ffff:127.0.0.1]",
            "0x7f.1",
        ]
    ),
    st.ip_addresses().map(lambda ip: f"[{ip}]" if ip.version == 6 else str(ip)),
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.text("abc.-_%[]:@\\#?/ 019\t\n", max_size=12),
)
ports = st.sampled_from(["", "", ":1", ":443", ":0", ":", ":x", ":99999", ":-1", ":+1", ":1_0", ":٣"])
paths = st.one_of(st.just(""), st.text("/ab?&=#%25\\@: .", max_size=12).map(lambda text: "/" + text))
urls = st.one_of(st.builds("{}{}{}{}{}".format, schemes, users, hosts, ports, paths), st.text(max_size=40))


@generated
@given(urls)
def test_a_url_is_refused_or_means_what_another_reader_takes_it_for(url: str) -> None:
    try:
        target = targets.Target.parse(url)
    except FeedError as error:
        text = str(error)
        assert text
        assert "\n" not in text
        return
    other = httpx.URL(url)
    assert (target.scheme, target.host) == (other.scheme, other.host)
    assert target.port == (other.port or targets.DEFAULT_PORTS[target.scheme])
    assert target.path_and_query.startswith("/")
    assert target.path_and_query.isascii()
    assert "#" not in target.path_and_query
    if target.scheme == "http":
        assert target.host == "localhost" or ipaddress.ip_address(target.host).is_loopback


@generated
@given(urls)
def test_what_is_connected_to_by_http_is_this_machine(url: str) -> None:
    try:
        target = targets.Target.parse(url)
    except FeedError:
        return
    if target.scheme == "http":
        found = fetching._addresses(target.host, target.port, fetching._Deadline(1.0))
        assert found
        assert all(ipaddress.ip_address(address[0]).is_loopback for _, address in found)
