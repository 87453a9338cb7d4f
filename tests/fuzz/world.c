/* Builds and ends a server in the order in which main.c does. */
#include "world.h"

#include "admin/http.h"
#include "base/log.h"
#include "fake_clock.h"
#include "folder.h"
#include "fuzz.h"
#include "net/conn.h"
#include "net/listener.h"
#include "net/tls.h"

#include <event2/event.h>

#include <openssl/pem.h>
#include <openssl/x509.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <unistd.h>

/* Nothing that a script asks for takes so many turns: the server spins. */
#define MAX_TURNS 200000

static char clients_address[128];
static char control_path[128];

static void on_step(evutil_socket_t fd, short what, void *user);
static bool reload(void *user, admin_line_fn *say, void *say_user);
static struct tls *make_tls(void);
static void find_tls_address(const struct world *world, char *text);

void world_open(struct world *world, const struct sessions_options *options,
                const struct session_ops *ops, bool with_http, bool with_tls)
{
    const struct server_options server_options = {
        .drain_ms = 1000, .user_timeout_ms = 30000, .max_connections = 64};
    char tls_address[] = "127.0.0.1:0";
    char *const addresses[] = {clients_address};
    char *const tls_addresses[] = {tls_address};
    const struct listeners_options listeners_options = {
        .addresses = addresses,
        .count = 1,
        .tls_addresses = tls_addresses,
        .tls_count = with_tls ? 1 : 0,
        .backlog = 128,
    };
    struct event_config *config = event_config_new();
    char message[512] = "";

    *world = (struct world){.base = NULL};
    if (clients_address[0] == '\0') {
        snprintf(clients_address, sizeof(clients_address), "unix:%s/clients", folder_path());
        snprintf(control_path, sizeof(control_path), "%s/control", folder_path());
        (void)log_open(&(struct log_options){.program = "fuzz", .level = LOG_LEVEL_ERROR - 1});
    }
    (void)signal(SIGPIPE, SIG_IGN); /* as main.c does */
    fake_clock_start();
    world->registry = registry_new();
    world->sessions = sessions_new(options, world->registry, world_credentials(),
                                   ops ? ops : &conn_session_ops, clock_now());
    world->store_options = (struct store_options){.kind = STORE_MEMORY, .node = "fuzz"};
    world->store = store_open(&world->store_options, world->registry, sessions_on_answer,
                              world->sessions, message, sizeof(message));
    sessions_set_store(world->sessions, world->store, clock_now());

    fuzz_require(config && event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV) == 0);
    world->base = event_base_new_with_config(config);
    event_config_free(config);
    if (with_tls)
        world->tls = make_tls();
    struct listeners *listeners = listeners_open(&listeners_options, message, sizeof(message));
    fuzz_require(world->base && listeners);
    world->server = server_new(&server_options, world->base, listeners, world->tls, world->sessions,
                               world->store);
    world->stepper = evtimer_new(world->base, on_step, world);
    fuzz_require(world->server && world->stepper);
    world->admin = (struct admin){
        .registry = world->registry,
        .sessions = world->sessions,
        .store = world->store,
        .server = world->server,
        .node = "fuzz",
        .store_kind = "memory",
        .started_us = clock_monotonic_us(),
        .reload = reload,
        .user = world,
    };
    if (with_http) {
        const struct http_options http_options = {.socket = control_path, .listen = "127.0.0.1:0"};
        struct credentials *tokens = credentials_new();
        fuzz_require(tokens && credentials_add(tokens, WORLD_TOKEN, strlen(WORLD_TOKEN)) == 0);
        world->http =
            http_new(world->base, &world->admin, &http_options, tokens, message, sizeof(message));
        fuzz_require(world->http);
        sessions_set_watch(world->sessions, http_on_event, world->http);
    }
}

void world_run(struct world *world, bool (*step)(void *user), void *user)
{
    world->step = step;
    world->user = user;
    on_step(-1, 0, world);
    fuzz_require(server_run(world->server) == 0);
}

void world_close(struct world *world)
{
    fuzz_require(sessions_connected(world->sessions) == 0);
    fuzz_require(sessions_pending(world->sessions) == 0);
    fuzz_require(registry_connected(world->registry) == 0);
    http_free(world->http);
    event_free(world->stepper);
    server_free(world->server);
    store_close(world->store, clock_now());
    sessions_free(world->sessions);
    registry_free(world->registry);
    event_base_free(world->base);
    fake_clock_stop();
}

struct sessions_options world_options(void)
{
    return (struct sessions_options){
        .interval_ms = 10000,
        .misses = 3,
        .require_reply = SERVER_FSM_REPLY_AUTO,
        .handshake_timeout_ms = 10000,
        .duplicate_id = DUPLICATE_PROBE,
        .forget_after_ms = UINT64_MAX,
        .explain_refusals = true,
        .limits = {.max_clients = 16, .max_pending = 32, .max_tls_pending = 32},
    };
}

struct credentials *world_credentials(void)
{
    struct credentials *credentials = credentials_new();

    fuzz_require(credentials);
    fuzz_require(credentials_add(credentials, WORLD_PASSWORD, strlen(WORLD_PASSWORD)) == 0);
    return credentials;
}

int world_connect(const struct world *world, enum world_door door)
{
    char text[ADDRESS_TEXT_BYTES];
    char message[256];
    struct address address;

    if (door == WORLD_CLIENTS)
        snprintf(text, sizeof(text), "%s", clients_address);
    else if (door == WORLD_TLS)
        find_tls_address(world, text);
    else if (door == WORLD_CONTROL_SOCKET)
        snprintf(text, sizeof(text), "unix:%.100s", control_path);
    else
        snprintf(text, sizeof(text), "%s", http_address(world->http));
    fuzz_require(address_parse(text, &address, message, sizeof(message)) == 0);
    const int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fuzz_require(fd >= 0);
    if (connect(fd, (const struct sockaddr *)&address.storage, address.len) != 0) {
        close(fd);
        return -1;
    }
    fuzz_require(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    if (door == WORLD_CONTROL_PORT ||
        door == WORLD_TLS) { /* the kernel's delays are in real time */
        static const int yes = 1;
        fuzz_require(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes)) == 0);
    }
    return fd;
}

enum order_result world_order(struct world *world, const char *match, uint64_t grace_ms,
                              uint64_t hold_ms)
{
    struct order_request request = {.grace_ms = grace_ms, .hold_ms = hold_ms, .by = "fuzz"};
    char message[256];

    fuzz_require(order_waves_add(&request.waves, match, message, sizeof(message)) == 0);
    return sessions_give_order(world->sessions, &request, clock_now());
}

/* A timer that is always due: the loop never waits, and there is one step in each of its turns. */
static void on_step(evutil_socket_t fd, short what, void *user)
{
    static const struct timeval at_once = {.tv_sec = 0};
    struct world *world = user;

    (void)fd;
    (void)what;
    fuzz_require(++world->turns < MAX_TURNS);
    if (world->step && !world->step(world->user)) {
        world->step = NULL;
        if (server_is_serving(world->server))
            server_stop(world->server);
    }
    if (!world->step) /* whoever lingers or drains is given the time */
        fake_clock_advance_ms(100);
    fuzz_require(event_add(world->stepper, &at_once) == 0);
}

static bool reload(void *user, admin_line_fn *say, void *say_user)
{
    struct world *world = user;

    world->reloads++;
    if (world->reloads % 2 == 0) {
        say(say_user, "cliser.ini:1: \"x\" is wrong");
        return false;
    }
    say(say_user, "[server] listen");
    return true;
}

/* A key and a certificate for it, of this run: OpenSSL's random numbers are others each time. */
static struct tls *make_tls(void)
{
    static char cert_path[128];
    static char key_path[128];
    const struct tls_options options = {.cert = cert_path, .key = key_path};
    char message[512] = "";
    enum tls_file file = TLS_CERT;

    if (cert_path[0] == '\0') {
        EVP_PKEY *key = EVP_EC_gen("P-256");
        X509 *cert = X509_new();
        fuzz_require(key && cert && X509_set_version(cert, 2) == 1);
        (void)ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
        (void)X509_gmtime_adj(X509_getm_notBefore(cert), -86400);
        (void)X509_gmtime_adj(X509_getm_notAfter(cert), 86400L * 3650);
        (void)X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                                         (const unsigned char *)"localhost", -1, -1, 0);
        (void)X509_set_issuer_name(cert, X509_get_subject_name(cert));
        fuzz_require(X509_set_pubkey(cert, key) == 1 && X509_sign(cert, key, EVP_sha256()) > 0);
        snprintf(cert_path, sizeof(cert_path), "%s/cert.pem", folder_path());
        snprintf(key_path, sizeof(key_path), "%s/key.pem", folder_path());
        folder_put("cert.pem", "", 0);
        folder_put("key.pem", "", 0);
        FILE *out = fopen(cert_path, "w");
        fuzz_require(out && PEM_write_X509(out, cert) == 1 && fclose(out) == 0);
        out = fopen(key_path, "w");
        fuzz_require(out && PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL) == 1 &&
                     fclose(out) == 0);
        X509_free(cert);
        EVP_PKEY_free(key);
    }
    struct tls *tls = tls_new(&options, &file, message, sizeof(message));
    if (!tls)
        fprintf(stderr, "%s\n", message);
    fuzz_require(tls);
    return tls;
}

static void find_tls_address(const struct world *world, char *text)
{
    char *all = server_describe(world->server, "");
    const char *at = all ? strstr(all, "tls:") : NULL;

    fuzz_require(at);
    snprintf(text, ADDRESS_TEXT_BYTES, "%.*s", (int)strcspn(at + 4, ","), at + 4);
    free(all);
}
