/* cliserctl: the operator's command. Puts options, API and command together; the command decides
 * the exit status, and whether its output arrived is seen to here. */
#include "api.h"
#include "commands.h"
#include "options.h"

#include "base/settings.h"
#include "base/std_fds.h"

#include <signal.h>
#include <stdio.h>

static enum ctl_exit run(const struct ctl_options *options);

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
    /* What was not written was not done, whatever else went well. */
    return say_flush() ? (int)status : CTL_FAILED;
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
