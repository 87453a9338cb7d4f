/* The checks. Nothing here knows what is asked for. */
#include "admin/access.h"

#include "registry/credential.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define BEARER    "Bearer "
#define JSON_TYPE "application/json"

static bool is_ours(const struct address *address, const char *host);
static bool is_any(const struct address *address);

unsigned access_check_origin(const struct address *address, const struct access_headers *headers,
                             const char **why)
{
    static const char scheme[] = "http://";

    if (headers->repeated) {
        *why = "a header that may stand there once stands there twice";
        return 400;
    }
    if (!headers->host) {
        *why = "there is no Host header";
        return 400;
    }
    if (!is_ours(address, headers->host)) {
        *why =
            "the Host header is not this server; use the address of [control] http, or localhost";
        return 403;
    }
    if (headers->origin && (strncmp(headers->origin, scheme, strlen(scheme)) != 0 ||
                            !is_ours(address, headers->origin + strlen(scheme)))) {
        *why = "the request comes from a page of another server";
        return 403;
    }
    return 0;
}

unsigned access_check_token(const struct credentials *tokens, const struct access_headers *headers,
                            const char **why)
{
    const char *given = headers->authorization;

    if (!given) {
        *why = "a token is needed; send Authorization: Bearer TOKEN, from the file [control] "
               "token_file names";
        return 401;
    }
    if (strncasecmp(given, BEARER, strlen(BEARER)) != 0) {
        *why = "the Authorization header should be Bearer and the token";
        return 401;
    }
    given += strlen(BEARER);
    if (!credentials_accept(tokens, given, strlen(given))) {
        *why = "this is not the token; it is in the file that [control] token_file names";
        return 401;
    }
    return 0;
}

unsigned access_check_type(const struct access_headers *headers, const char **why)
{
    const char *type = headers->content_type;
    const size_t len = strlen(JSON_TYPE);

    if (type && strncasecmp(type, JSON_TYPE, len) == 0 &&
        (type[len] == '\0' || type[len] == ';' || type[len] == ' '))
        return 0;
    *why = "a change needs Content-Type: " JSON_TYPE;
    return 415;
}

/* NAME:PORT, or a name alone for port 80: is that where we listen? Where we listen on all
 * addresses, any of them may be meant; a name may not, since whoever owns it can make it mean us.
 */
static bool is_ours(const struct address *address, const char *host)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    char ours[ADDRESS_TEXT_BYTES];
    char given[ADDRESS_TEXT_BYTES];
    char expected[ADDRESS_TEXT_BYTES];
    char message[ADDRESS_TEXT_BYTES];
    struct address parsed;
    const char *bracket = strrchr(host, ']');
    const bool has_port = strchr(bracket ? bracket : host, ':') != NULL;

    if ((size_t)snprintf(given, sizeof(given), has_port ? "%s" : "%s:80", host) >= sizeof(given))
        return false;
    address_format(address, ours);
    if (strcasecmp(given, ours) == 0)
        return true;
    const char *port = strrchr(ours, ':');
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(expected, sizeof(expected), "%s%.16s", names[i], port);
        if (strcasecmp(given, expected) == 0)
            return true;
    }
    return is_any(address) && address_parse(given, &parsed, message, sizeof(message)) == 0 &&
           parsed.storage.ss_family != AF_UNIX && strcmp(strrchr(given, ':'), port) == 0;
}

static bool is_any(const struct address *address)
{
    if (address->storage.ss_family == AF_INET)
        return ((const struct sockaddr_in *)&address->storage)->sin_addr.s_addr == INADDR_ANY;
    return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)&address->storage)->sin6_addr);
}
