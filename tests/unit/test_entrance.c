/* Operators get in when clients have taken every descriptor, and what is kept for that stays kept.
 */
#include "admin/entrance.h"

#include "unit.h"

#include <event2/event.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* More than are kept. */
#define OPERATORS 12

struct world {
    struct event_base *base;
    struct entrance *entrance;
    struct rlimit limit;
    int listener;
    int inside[OPERATORS]; /* let in */
    int inside_count;
};

static bool has_room(void *user)
{
    (void)user;
    return true;
}

static void take(void *user, int fd, const struct address *from)
{
    struct world *world = user;

    (void)from;
    assert_true(world->inside_count < OPERATORS);
    world->inside[world->inside_count++] = fd;
}

static const struct entrance_ops ops = {has_room, take};

static int set_up(void **state)
{
    static struct world world;
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    world = (struct world){.base = event_base_new()};
    /* Abstract: the first byte is NUL, and there is no file. */
    snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "test-entrance-%d", (int)getpid());
    world.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (!world.base || world.listener < 0 ||
        bind(world.listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(world.listener, OPERATORS) != 0 || getrlimit(RLIMIT_NOFILE, &world.limit) != 0)
        return -1;
    world.entrance = entrance_new(world.base, world.listener, &ops, &world);
    *state = &world;
    return world.entrance ? 0 : -1;
}

static int tear_down(void **state)
{
    struct world *world = *state;

    (void)setrlimit(RLIMIT_NOFILE, &world->limit);
    for (int i = 0; i < world->inside_count; i++)
        close(world->inside[i]);
    entrance_free(world->entrance);
    close(world->listener);
    event_base_free(world->base);
    return 0;
}

/* An operator outside; the socket is the caller's. */
static int come(const struct world *world)
{
    struct sockaddr_un address;
    socklen_t len = sizeof(address);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(getsockname(world->listener, (struct sockaddr *)&address, &len), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, len), 0);
    return fd;
}

/* From here on there is no descriptor for anybody. */
static void use_up_descriptors(const struct world *world)
{
    const int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
    const struct rlimit none = {.rlim_cur = (rlim_t)next, .rlim_max = world->limit.rlim_max};

    assert_true(next >= 0);
    close(next);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
}

/* As clients do who wait for one. */
static bool somebody_else_gets_one(void)
{
    const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void operators_get_in_without_descriptors(void **state)
{
    struct world *world = *state;
    int outside[4];

    for (int i = 0; i < 4; i++)
        outside[i] = come(world);
    use_up_descriptors(world);
    (void)event_base_loop(world->base, EVLOOP_NONBLOCK);
    assert_int_equal(world->inside_count, 4);
    for (int i = 0; i < 4; i++)
        close(outside[i]);
}

/* The attempt behind the last operator gives up a descriptor and finds nobody. */
static void what_was_given_up_for_nobody_is_taken_back_at_once(void **state)
{
    struct world *world = *state;
    const int outside = come(world);

    use_up_descriptors(world);
    assert_false(somebody_else_gets_one());
    (void)event_base_loop(world->base, EVLOOP_NONBLOCK);
    assert_int_equal(world->inside_count, 1);
    assert_false(somebody_else_gets_one());
    close(outside);
}

static void what_was_lent_is_taken_back_when_it_is_given_back(void **state)
{
    struct world *world = *state;

    for (int i = 0; i < OPERATORS; i++) {
        const int outside = come(world);

        use_up_descriptors(world);
        (void)event_base_loop(world->base, EVLOOP_NONBLOCK);
        assert_int_equal(world->inside_count, 1);
        close(world->inside[--world->inside_count]);
        entrance_tend(world->entrance);
        assert_false(somebody_else_gets_one());
        (void)setrlimit(RLIMIT_NOFILE, &world->limit);
        close(outside);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(operators_get_in_without_descriptors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_given_up_for_nobody_is_taken_back_at_once, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_was_lent_is_taken_back_when_it_is_given_back, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
