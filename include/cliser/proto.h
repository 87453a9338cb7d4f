/*
 * The cliser wire protocol: its codes, its lines and its two grammars.
 *
 * Everything here is pure: no I/O, no allocation, no clock, no globals that change. It runs on a
 * server with a million clients and on a microcontroller with one. docs/protocol.md, sections
 * "Lines" and "Codes", is the text this header puts into C.
 */
#ifndef CLISER_PROTO_H
#define CLISER_PROTO_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PROTO_MAX_LINE_BYTES     256 /* a line with its LF or CRLF */
#define PROTO_MAX_ID_BYTES       64
#define PROTO_MAX_PASSWORD_BYTES 128

/* The three digits a line from the server begins with. They alone decide; the text is for people.
 */
enum proto_code {
    PROTO_KEEP_ALIVE = 100,
    PROTO_PASSWORD = 110,
    PROTO_ID = 120,
    PROTO_SHUTDOWN = 130,
    PROTO_CONNECTED = 140,
    PROTO_PROTOCOL_ERROR = 400,
    PROTO_TIMED_OUT = 408,
    PROTO_WRONG_PASSWORD = 410,
    PROTO_INVALID_ID = 420,
    PROTO_ID_IN_USE = 421,
    PROTO_ID_NOT_ALLOWED = 422,
    PROTO_TOO_MANY = 429,
    PROTO_DISCONNECTED = 430,
    PROTO_REPLACED = 431,
    PROTO_SERVER_FULL = 450,
    PROTO_REGISTRY_UNAVAILABLE = 451,
    PROTO_RESTARTING = 460,
};

/* What a client that was refused does before its next try. */
enum proto_retry {
    PROTO_RETRY_NONE,       /* not a refusal */
    PROTO_RETRY_BACK_OFF,   /* exponential back-off with full jitter */
    PROTO_RETRY_LONG_PAUSE, /* trying again soon cannot help: pause long */
    PROTO_RETRY_SPREAD,     /* everyone was told at once: back off, spread out */
};

/* One row of the code table. All pointers are to constants that live forever. */
struct proto_code_info {
    enum proto_code code;
    const char *text;       /* "qual a senha" */
    const char *line;       /* "110: qual a senha\r\n", as it goes over the wire */
    size_t line_len;        /* bytes in line, without the terminating NUL */
    enum proto_retry retry; /* PROTO_RETRY_NONE for codes below 400 */
};

enum proto_error {
    PROTO_ERR_TOO_LONG = -1, /* no line end within PROTO_MAX_LINE_BYTES */
    PROTO_ERR_NUL = -2,      /* a NUL byte inside the line */
};

/* Looks a code up. Returns its row, or NULL for a number that is not in the table. */
const struct proto_code_info *proto_code_info(int code);

/*
 * Walks the code table: index counts from 0. Returns NULL behind the last row.
 */
const struct proto_code_info *proto_code_at(size_t index);

/*
 * Finds the first line in the len bytes at buf, which need not end with NUL.
 *
 * Returns the number of bytes the line takes with its end (1 to PROTO_MAX_LINE_BYTES) and sets
 * *line and *line_len to its text without LF or CRLF; the text points into buf. Returns 0 when the
 * line is not complete yet: call again with the same bytes and more behind them. Returns a negative
 * enum proto_error for bytes that can never become a valid line; the connection must be closed. The
 * answer depends on the bytes alone, never on how they were cut into segments.
 */
int proto_take_line(const char *buf, size_t len, const char **line, size_t *line_len);

/*
 * Returns the code that the line begins with, 0 to 999, or -1 when it does not begin with three
 * digits. The number need not be in the table.
 */
int proto_parse_code(const char *line, size_t len);

/* Is this an ID: 1 to 64 of A-Z a-z 0-9 . _ : @ - ? */
bool proto_id_valid(const char *id, size_t len);

/* Can this be a password: 1 to 128 bytes without CR, LF and NUL? */
bool proto_password_valid(const char *password, size_t len);

/* Describes an enum proto_error in a few words, for people. Never NULL. */
const char *proto_strerror(int error);

#ifdef __cplusplus
}
#endif

#endif
