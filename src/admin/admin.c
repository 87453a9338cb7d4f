/* The checks between an operator's wish and the sessions. Owns nothing. */
#include "admin/admin.h"

#include "net/server.h"
#include "registry/registry.h"
#include "store/store.h"

#include <string.h>

struct registry_record *admin_find(const struct admin *admin, const char *cid)
{
    struct registry_record *record = registry_find(admin->registry, cid, strlen(cid));

    return record && admin_knows(record) ? record : NULL;
}

bool admin_knows(const struct registry_record *record)
{
    return record->stored;
}

enum admin_result admin_ping(struct admin *admin, const char *cid, struct ping *ping,
                             struct moment now)
{
    struct registry_record *record = admin_find(admin, cid);

    if (!record)
        return ADMIN_ERR_UNKNOWN;
    if (!record->connected)
        return ADMIN_ERR_NOT_CONNECTED;
    ping_start(admin->sessions, record, ping, now);
    return ADMIN_OK;
}

enum admin_result admin_disconnect(struct admin *admin, const char *cid, struct moment now)
{
    struct registry_record *record = admin_find(admin, cid);

    if (!record)
        return ADMIN_ERR_UNKNOWN;
    if (!record->connected)
        return ADMIN_ERR_NOT_CONNECTED;
    sessions_disconnect(admin->sessions, record, now);
    return ADMIN_OK;
}

enum admin_result admin_forget(struct admin *admin, const char *cid, struct moment now)
{
    struct registry_record *record = admin_find(admin, cid);

    if (!record)
        return ADMIN_ERR_UNKNOWN;
    if (record->connected || record->holder || record->claims > 0)
        return ADMIN_ERR_CONNECTED;
    if (!sessions_may_forget(admin->sessions, record))
        return ADMIN_ERR_IN_ORDER;
    sessions_forget(admin->sessions, record, now);
    return ADMIN_OK;
}

uint64_t admin_max_clients(const struct admin *admin)
{
    const struct server_stats *stats = server_stats(admin->server);
    const uint64_t connections =
        stats->pending + stats->connected + stats->leaving + stats->closing + stats->room;
    const uint64_t wanted = sessions_options(admin->sessions)->limits.max_clients;

    return wanted < connections ? wanted : connections;
}

const char *admin_not_ready(const struct admin *admin)
{
    if (!server_is_serving(admin->server))
        return "the server is stopping";
    if (!store_healthy(admin->store))
        return "the registry cannot be written";
    if (sessions_connected(admin->sessions) >= admin_max_clients(admin))
        return "there is no room for another client";
    return NULL;
}
