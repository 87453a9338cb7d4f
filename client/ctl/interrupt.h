/* Ctrl-C, for the commands that end in good order. */
#ifndef CTL_INTERRUPT_H
#define CTL_INTERRUPT_H

#include <stdbool.h>

/* From now on SIGINT and SIGTERM no longer end the program; they make interrupt_seen() true. */
void interrupt_catch(void);

bool interrupt_seen(void);

/* Becomes readable with the first of them, so that no wait misses it; -1 before interrupt_catch().
 */
int interrupt_fd(void);

#endif
