/*
 * A program outside the tree, built on the installed libcliser alone: a server machine and a client
 * machine talk to each other in memory, from the password to a shutdown. Exits 0 when they got
 * there.
 */
#include <cliser/client_fsm.h>
#include <cliser/proto.h>
#include <cliser/server_fsm.h>

#include <stdio.h>
#include <string.h>

/* What one side has sent and the other has not read yet. */
struct wire {
    char bytes[1024];
    size_t len;
};

static struct wire to_client, to_server;
static int shutdowns, answers;

static void put(struct wire *wire, const char *bytes, size_t len)
{
    if (wire->len + len > sizeof(wire->bytes))
        return;
    memcpy(wire->bytes + wire->len, bytes, len);
    wire->len += len;
}

static void server_send(struct server_fsm *fsm, const struct proto_code_info *code)
{
    (void)fsm;
    put(&to_client, code->line, code->line_len);
}

static bool server_check_password(struct server_fsm *fsm, const char *line, size_t len)
{
    (void)fsm;
    return len == 6 && memcmp(line, "secret", 6) == 0;
}

static void server_claim_id(struct server_fsm *fsm, const char *id, size_t len)
{
    (void)fsm;
    printf("claimed: %.*s\n", (int)len, id);
}

static void server_answered(struct server_fsm *fsm, enum proto_code code)
{
    (void)fsm;
    (void)code;
    answers++;
}

static void server_give_back(struct server_fsm *fsm)
{
    (void)fsm;
}

static void server_changed(struct server_fsm *fsm, enum server_fsm_state old, int why)
{
    (void)why;
    printf("server: %s -> %s\n", server_fsm_state_name(old),
           server_fsm_state_name((enum server_fsm_state)fsm->state));
}

static void client_send(struct client_fsm *fsm, const char *bytes, size_t len)
{
    (void)fsm;
    put(&to_server, bytes, len);
}

static void client_shutdown(struct client_fsm *fsm)
{
    (void)fsm;
    shutdowns++;
}

static void client_changed(struct client_fsm *fsm, enum client_fsm_state old)
{
    printf("client: %s -> %s\n", client_fsm_state_name(old),
           client_fsm_state_name((enum client_fsm_state)fsm->state));
}

static const struct server_fsm_ops server_ops = {
    server_send,     server_check_password, server_claim_id,
    server_answered, server_give_back,      server_changed,
};
static const struct client_fsm_ops client_ops = {client_send, client_shutdown, client_changed};

static const struct server_fsm_env server_env = {
    &server_ops, {.misses = 3, .require_reply = SERVER_FSM_REPLY_AUTO, .explain_refusals = true}};
static const struct client_fsm_env client_env = {&client_ops, "secret", 6, "web-1", 5};

static struct server_fsm server;
static struct client_fsm client;

/* Carries lines both ways until there are none. */
static void exchange(void)
{
    const char *line = NULL;
    size_t len = 0;
    int taken = 0;

    while (to_client.len > 0 || to_server.len > 0) {
        struct wire *wire = to_client.len > 0 ? &to_client : &to_server;

        taken = proto_take_line(wire->bytes, wire->len, &line, &len);
        if (taken <= 0)
            return;
        if (wire == &to_client)
            client_fsm_line(&client, &client_env, line, len);
        else
            (void)server_fsm_line(&server, &server_env, line, len);
        wire->len -= (size_t)taken;
        memmove(wire->bytes, wire->bytes + taken, wire->len);
    }
}

int main(void)
{
    client_fsm_start(&client);
    server_fsm_start(&server, &server_env);
    exchange();
    (void)server_fsm_stored(&server, &server_env);
    exchange();
    (void)server_fsm_deadline(&server, &server_env);
    exchange();
    (void)server_fsm_order(&server, &server_env);
    exchange();

    if (shutdowns != 1 || answers != 2) {
        printf("failed: %d shutdowns, %d answers\n", shutdowns, answers);
        return 1;
    }
    printf("ok\n");
    return 0;
}
