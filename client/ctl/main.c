/* cliserctl: the operator's command. Puts options, API and command together; the command decides
 * the exit status, and whether its output arrived is seen to here. */
#include "api.h"
#include "commands.h"
#include "options.h"

#include "base/settings.h"
#include "base/std_fds.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static enum ctl_exit run(const struct ctl_options *options);
static enum ctl_exit finish_output(enum ctl_exit status);

int main(int argc, char **argv)
{
    struct ctl_options options;
    enum ctl_exit status = CTL_DONE;

    std_fds_fill();
    /* A reader that has seen enough, as head has, is told from a broken server by EPIPE. */
    signal(SIGPIPE, SIG_IGN);
    switch (ctl_options_parse(argc, argv, &options)) {
    case OPTIONS_WRONG:
        return CTL_USAGE;
    case OPTIONS_DONE:
        break;
    case OPTIONS_RUN:
        status = run(&options);
        break;
    }
    return (int)finish_output(status);
}

static enum ctl_exit run(const struct ctl_options *options)
{
    struct api_options api_options = {
        .socket = options->socket,
        .url = options->url,
        .token_file = options->token_file,
    };
    char *token = NULL;
    char message[512];

    if (options->url) {
        token = settings_read_secret(options->token_file, message, sizeof(message));
        if (!token) {
            say_error("--token-file: %s", message);
            return CTL_USAGE;
        }
        api_options.token = token;
    }
    struct ctl ctl = {.options = options, .api = api_new(&api_options)};

    const enum ctl_exit status = options->command->run(&ctl);
    api_free(ctl.api);
    settings_free_secret(token);
    return status;
}

/* What was not written was not done, whatever else went well. */
static enum ctl_exit finish_output(enum ctl_exit status)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    /* After an earlier error errno may say nothing; a closed pipe needs no words. */
    if (errno != 0 && errno != EPIPE)
        say_error("cannot write the output: %s", strerror(errno));
    return CTL_FAILED;
}
