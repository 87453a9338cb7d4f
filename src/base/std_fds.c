/* Nothing is written to what is not ours. */
#include "base/std_fds.h"

#include <fcntl.h>
#include <unistd.h>

void std_fds_fill(void)
{
    int fd;

    /* open() takes the lowest free number, so this fills up to 2 and stops behind it. */
    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}
