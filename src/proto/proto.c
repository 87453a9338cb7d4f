/*
 * The line codec and the one table of codes. Knows nothing of connections, clients or states; those
 * are in server_fsm.c and client_fsm.c. Owns no memory.
 */
#include "cliser/proto.h"

#include <string.h>

/* clang-format off */
#define ROW(number, text, retry) \
    {number, text, #number ": " text "\r\n", sizeof(#number ": " text "\r\n") - 1, retry}

static const struct proto_code_info codes[] = {
    ROW(100, "keep alive",                 PROTO_RETRY_NONE),
    ROW(110, "qual a senha",               PROTO_RETRY_NONE),
    ROW(120, "qual o ID",                  PROTO_RETRY_NONE),
    ROW(130, "shutdown sys",               PROTO_RETRY_NONE),
    ROW(140, "Connected",                  PROTO_RETRY_NONE),
    ROW(400, "protocol error",             PROTO_RETRY_LONG_PAUSE),
    ROW(408, "timed out",                  PROTO_RETRY_BACK_OFF),
    ROW(410, "wrong password",             PROTO_RETRY_LONG_PAUSE),
    ROW(420, "invalid ID",                 PROTO_RETRY_LONG_PAUSE),
    ROW(421, "ID already connected",       PROTO_RETRY_BACK_OFF),
    ROW(422, "ID not allowed",             PROTO_RETRY_LONG_PAUSE),
    ROW(429, "too many from this address", PROTO_RETRY_BACK_OFF),
    ROW(430, "disconnected by operator",   PROTO_RETRY_LONG_PAUSE),
    ROW(431, "replaced",                   PROTO_RETRY_LONG_PAUSE),
    ROW(450, "server full",                PROTO_RETRY_BACK_OFF),
    ROW(451, "registry unavailable",       PROTO_RETRY_BACK_OFF),
    ROW(460, "server restarting",          PROTO_RETRY_SPREAD),
};
/* clang-format on */

static const size_t code_count = sizeof(codes) / sizeof(codes[0]);

static bool is_id_byte(char byte);

const struct proto_code_info *proto_code_info(int code)
{
    for (size_t i = 0; i < code_count; i++) {
        if ((int)codes[i].code == code)
            return &codes[i];
    }
    return NULL;
}

const struct proto_code_info *proto_code_at(size_t index)
{
    return index < code_count ? &codes[index] : NULL;
}

int proto_take_line(const char *buf, size_t len, const char **line, size_t *line_len)
{
    const size_t window = len < PROTO_MAX_LINE_BYTES ? len : PROTO_MAX_LINE_BYTES;
    if (window == 0)
        return 0;

    const char *end = memchr(buf, '\n', window);
    const size_t text_len = end ? (size_t)(end - buf) : window;

    if (memchr(buf, '\0', text_len))
        return PROTO_ERR_NUL;
    if (!end)
        return len >= PROTO_MAX_LINE_BYTES ? PROTO_ERR_TOO_LONG : 0;

    *line = buf;
    *line_len = text_len > 0 && buf[text_len - 1] == '\r' ? text_len - 1 : text_len;
    return (int)text_len + 1;
}

int proto_parse_code(const char *line, size_t len)
{
    int code = 0;

    if (len < 3)
        return -1;
    for (int i = 0; i < 3; i++) {
        if (line[i] < '0' || line[i] > '9')
            return -1;
        code = code * 10 + (line[i] - '0');
    }
    return code;
}

bool proto_id_valid(const char *id, size_t len)
{
    if (len < 1 || len > PROTO_MAX_ID_BYTES)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!is_id_byte(id[i]))
            return false;
    }
    return true;
}

bool proto_password_valid(const char *password, size_t len)
{
    if (len < 1 || len > PROTO_MAX_PASSWORD_BYTES)
        return false;
    return !memchr(password, '\0', len) && !memchr(password, '\r', len) &&
           !memchr(password, '\n', len);
}

const char *proto_strerror(int error)
{
    switch (error) {
    case PROTO_ERR_TOO_LONG:
        return "line longer than 256 bytes";
    case PROTO_ERR_NUL:
        return "NUL byte in a line";
    default:
        return "no error";
    }
}

/* Compared by hand: isalnum() would ask the locale. */
static bool is_id_byte(char byte)
{
    return (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
           (byte >= '0' && byte <= '9') || byte == '.' || byte == '_' || byte == ':' ||
           byte == '@' || byte == '-';
}
