"""GET / and the files of the page: what a browser is told of them, who may have them, and what
browsers must not do with them. What is on the page is not looked at here."""

import hashlib
import os
import re
import urllib.parse

import pytest

from control import Control, http_config

BUILT = os.environ.get("CLISER_DASHBOARD", "1") == "1"
needs_page = pytest.mark.skipif(not BUILT, reason="this build is without the page")

POLICY = {
    "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self'",
    "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'",
    "frame-ancestors": "'none'",
}
TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "txt": "text/plain"}


@pytest.fixture
def port(start_server, folder):
    """Over TCP, without a token, as a browser asks for a page."""
    return Control(start_server(http_config(folder)), tcp=True, token=None)


def files(control):
    """The paths of all files: the page, what it refers to, and the licences."""
    page = control.request("GET", "/").body.decode()
    return ["/", *re.findall(r'(?:src|href)="(/[^"]+)"', page), "/licences.txt"]


@needs_page
def test_page_and_its_files_need_no_token(port):
    paths = files(port)
    assert len(paths) >= 4
    for path in paths:
        answer = port.request("GET", path)
        assert answer.status == 200 and len(answer.body) == int(answer.header("content-length"))
        wanted = TYPES.get(path.rsplit(".", 1)[-1], "text/html")
        assert answer.header("content-type").split(";")[0] == wanted, path
    assert port.request("GET", "/v1/status").status == 401


@needs_page
def test_unix_socket_has_them_as_well(start_server):
    control = Control(start_server())
    for path in files(control):
        assert control.request("GET", path).status == 200


@needs_page
def test_page_may_load_nothing_from_elsewhere_and_is_in_no_frame(port):
    for path in files(port):
        for headers in ([], ['If-None-Match: *']):
            answer = port.request("GET", path, headers=headers)
            parts = answer.header("content-security-policy").split("; ")
            assert dict(part.split(" ", 1) for part in parts) == POLICY
            assert answer.header("x-content-type-options") == "nosniff"
            assert answer.header("x-frame-options") == "DENY"
            assert answer.header("referrer-policy") == "no-referrer"
            assert answer.header("cross-origin-opener-policy") == "same-origin"
            assert answer.header("cross-origin-resource-policy") == "same-origin"
    page = port.request("GET", "/").body.decode()
    for reference in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert urllib.parse.urlsplit(reference).netloc == "" and reference.startswith("/")
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", page), "nothing inline"


@needs_page
def test_browser_that_has_a_file_is_told_so(port):
    with port.raw() as raw:
        for path in files(port):
            whole = raw.ask(f"GET {path}").answer()
            etag = whole.header("etag")
            assert etag == '"' + hashlib.sha256(whole.body).hexdigest()[:16] + '"'
            assert whole.header("cache-control") == "no-cache"
            for known in (etag, f"W/{etag}", f'"x", {etag}', f'{etag}, W/"x"', "*"):
                answer = raw.ask(f"GET {path}", [f"If-None-Match: {known}"]).answer()
                assert answer.status == 304 and answer.header("etag") == etag
                assert answer.header("cache-control") == "no-cache"
            for other in ('"x"', f'"{etag[1:-2]}"', etag.strip('"'), "", '"*"'):
                answer = raw.ask(f"GET {path}", [f"If-None-Match: {other}"]).answer()
                assert (answer.status, answer.body) == (200, whole.body), other


@needs_page
def test_head_has_no_body(port):
    with port.raw() as raw:
        for path in files(port):
            whole = raw.ask(f"GET {path}").answer()
            head = raw.ask(f"HEAD {path}").answer(to_head=True)
            assert head.status == 200 and head.header("etag") == whole.header("etag")
            assert int(head.header("content-length")) == len(whole.body)
        assert raw.ask("GET /healthz").answer().json == {"ok": True}


@needs_page
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_files_can_only_be_read(port, method):
    for path in files(port):
        answer = port.request(method, path, b"" if method == "PUT" else None)
        assert (answer.status, answer.header("allow")) == (405, "GET")


@needs_page
def test_foreign_names_get_nothing(port):
    own, other = f"Host: {port.host}", "Host: evil.example"
    for path in files(port):
        for headers in ([other], [f"{other}:{port.port}"], [own, "Origin: http://evil.example"],
                        [own, "Origin: null"], [own, own]):
            answer = port.request("GET", path, headers=headers)
            assert answer.status in (400, 403) and answer.json["error"]
        answer = port.request("GET", path, headers=[own, f"Origin: http://{port.host}"])
        assert answer.status == 200


@needs_page
def test_files_take_no_parameters_and_are_nowhere_else(port):
    for path in files(port):
        assert port.request("GET", f"{path}?x=1").status == 400
        for other in (f"{path}/", f"/{path}", f"{path}x", f"/v1{path}", path.upper() + "/"):
            assert port.request("GET", other).status == 404
    assert port.request("GET", "/index.html").status == 404


def test_build_without_the_page_says_so(port):
    if BUILT:
        pytest.skip("this build has the page")
    answer = port.request("GET", "/")
    assert answer.status == 404 and "CLISER_DASHBOARD" in answer.json["error"]
    assert port.request("GET", "/dashboard.js").status == 404
