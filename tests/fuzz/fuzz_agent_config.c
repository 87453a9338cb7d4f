/*
 * cliser-agent's configuration: the input is its ini file, or, behind a first byte of '-', the
 * arguments of its command line, one a line. What is accepted is complete and says nothing on
 * stderr; what is refused says at least one whole line.
 */
#include "agent_config.h"

#include "cliser/proto.h"

#include "folder.h"
#include "fuzz.h"

#include <getopt.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_FILE_BYTES 8192
#define MAX_ARGUMENTS  16

static char file_path[64];
static int file_fd = -1;

static void prepare(void);
static enum agent_config_verdict read_quietly(struct agent_config *config, int argc, char **argv,
                                              char **said, size_t *said_len);
static void check_accepted(const struct agent_config *config, size_t said_len);
static void check_refused(const char *said, size_t said_len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char program[] = "cliser-agent";
    char *argv[MAX_ARGUMENTS + 2] = {program};
    int argc = 1;
    struct agent_config config = {.server = NULL};
    char *said = NULL;
    size_t said_len = 0;

    if (size > MAX_FILE_BYTES)
        return -1;
    prepare();
    char *text = fuzz_string(data, size);
    if (size > 0 && data[0] == '-') {
        char *rest = text;
        char *argument = NULL;

        while (argc <= MAX_ARGUMENTS && (argument = strsep(&rest, "\n")) != NULL)
            argv[argc++] = argument;
    } else {
        fuzz_require(ftruncate(file_fd, 0) == 0);
        fuzz_require(size == 0 || pwrite(file_fd, data, size, 0) == (ssize_t)size);
        argv[argc++] = file_path;
    }
    const enum agent_config_verdict verdict = read_quietly(&config, argc, argv, &said, &said_len);
    switch (verdict) {
    case AGENT_CONFIG_RUN:
        check_accepted(&config, said_len);
        break;
    case AGENT_CONFIG_DONE:
        break;
    case AGENT_CONFIG_WRONG:
        check_refused(said, said_len);
        break;
    }
    folder_leave();
    agent_config_clear(&config);
    free(said);
    free(text);
    return 0;
}

/* The file that seeds name, in a folder of our own. */
static void prepare(void)
{
    static const char password[] = "correct horse\n";

    if (file_fd >= 0)
        return;
    folder_put("password", password, strlen(password));
    file_fd = memfd_create("agent.ini", MFD_CLOEXEC);
    fuzz_require(file_fd >= 0);
    snprintf(file_path, sizeof(file_path), "/proc/self/fd/%d", file_fd);
}

/* What it says, on stderr and (--help) on stdout, comes into *said. */
static enum agent_config_verdict read_quietly(struct agent_config *config, int argc, char **argv,
                                              char **said, size_t *said_len)
{
    FILE *const real_stderr = stderr;
    FILE *const real_stdout = stdout;
    FILE *memory = open_memstream(said, said_len);

    fuzz_require(memory);
    stderr = stdout = memory;
    optind = 0; /* glibc: from the begin again */
    const enum agent_config_verdict verdict = agent_config_read(config, argc, argv);
    stderr = real_stderr;
    stdout = real_stdout;
    fuzz_require(fclose(memory) == 0);
    return verdict;
}

static void check_accepted(const struct agent_config *config, size_t said_len)
{
    fuzz_require(said_len == 0);
    fuzz_require(config->server &&
                 (config->endpoint.address.len > 0 || config->endpoint.host[0] != '\0'));
    fuzz_require(config->id && proto_id_valid(config->id, strlen(config->id)));
    fuzz_require(config->password &&
                 proto_password_valid(config->password, strlen(config->password)));
    fuzz_require(config->shutdown_delay_ms <= 86400000);
}

static void check_refused(const char *said, size_t said_len)
{
    static const char begin[] = "cliser-agent: ";

    fuzz_require(said_len > strlen(begin) && said[said_len - 1] == '\n');
    fuzz_require(strncmp(said, begin, strlen(begin)) == 0);
}
