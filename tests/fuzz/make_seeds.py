#!/usr/bin/python3
"""
Writes the seeds of the corpora: inputs that people thought of, from the protocol's transcripts and
the garbage of the black-box tests. What fuzzing found stands beside them under names that are
hashes. Run it after a change of it; it removes nothing.
"""

import pathlib

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"


def write(target, seeds):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in seeds.items():
        (folder / name).write_bytes(content)


# ---- what one peer sends, as it goes over the wire ----

# The rows of FAULTS section 3 that are about bytes, in the order of their numbers.
FROM_CLIENT = {
    "session": b"secret\nweb-1\n100\n100\n130\n",
    "session-crlf": b"secret\r\nweb-1\r\n100\r\n130\r\n",
    "no-line-end": b"x" * 1000,
    "line-255-lf": b"x" * 254 + b"\n" + b"y\n",
    "line-256-lf": b"x" * 255 + b"\n" + b"y\n",
    "line-257-lf": b"x" * 256 + b"\n" + b"y\n",
    "line-256-crlf": b"x" * 254 + b"\r\n" + b"y\n",
    "line-257-crlf": b"x" * 255 + b"\r\n" + b"y\n",
    "nul": b"sec\0ret\nweb-1\n",
    "nul-in-second-line": b"secret\nweb\0-1\n",
    "bare-cr": b"sec\rret\nweb-1\r\r\n",
    "high-bytes": bytes(range(128, 256)) + b"\n" + b"\xc0\x80\xf8\x88\x80\x80\x80\n",
    "escapes-in-id": b"secret\n\x1b[2J\n",
    "markup-in-id": b"secret\n\"><script>alert(1)</script>\n",
    "id-64": b"secret\n" + b"A" * 64 + b"\n",
    "id-65": b"secret\n" + b"A" * 65 + b"\n",
    "id-all": b"secret\nAZaz09._:@-\n",
    "pipelined": b"secret\nweb-1\n100\n",
    "answer-first": b"100\nsecret\nweb-1\n",
    "every-code": b"secret\nweb-1\n" + b"".join(
        b"%d: text\n" % code for code in (100, 110, 120, 130, 140, 400, 408, 410, 460, 499, 999)),
    "unasked-8": b"secret\nweb-1\n" + b"hello\n" * 8,
    "unasked-9": b"secret\nweb-1\n" + b"hello\n" * 9,
    "empty-password": b"\nweb-1\n",
    "empty-id": b"secret\n\r\n",
    "blanks": b" \n \n",
    "password-128": b"p" * 128 + b"\nweb-1\n",
    "password-129": b"p" * 129 + b"\nweb-1\n",
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls-hello": bytes.fromhex("16030100c4010000c00303") + bytes(range(32)) + b"\x20",
    "ssh": b"SSH-2.0-OpenSSH_9.2p1\r\n",
}

FROM_SERVER = {
    "session": b"110: qual a senha\r\n120: qual o ID\r\n140: Connected\r\n100: keep alive\r\n"
               b"130: shutdown sys\r\n100: keep alive\r\n",
    "digits-only": b"110\n120\n140\n100\n130\n",
    "refused-at-once": b"450: server full\r\n",
    "wrong-password": b"110: qual a senha\r\n410: wrong password\r\n",
    "refused-id": b"110\r\n120\r\n421: ID already connected\r\n",
    "unknown-refusal": b"110\r\n120\r\n499: later perhaps\r\n",
    "unknown-code": b"110\r\n120\r\n777: something new\r\n140\r\n200 fine\r\n",
    "order-too-early": b"130: shutdown sys\r\n",
    "order-before-140": b"110\r\n120\r\n130: shutdown sys\r\n",
    "order-twice": b"110\r\n120\r\n140\r\n130\r\n130\r\n",
    "other-server": b"220 mail.example.org ESMTP\r\n",
    "garbage": b"hello\r\n",
    "wrong-order": b"120\r\n110\r\n140\r\n",
    "nul": b"110\0\r\n",
    "long": b"110: " + b"x" * 300 + b"\r\n",
}


def main():
    write("proto", FROM_CLIENT)
    write("proto", {f"server-{name}": seed for name, seed in FROM_SERVER.items()})


if __name__ == "__main__":
    main()
