/* A temporary folder of the target's own, for inputs and code under test that name files. Removed
 * when the program ends, unless it crashes. */
#ifndef FUZZ_FOLDER_H
#define FUZZ_FOLDER_H

#include <stddef.h>

/* Its path, without a / at the end. It is made with the first call. */
const char *folder_path(void);

/* Writes a file, readable by its owner only. */
void folder_put(const char *name, const void *bytes, size_t len);

/* Removes a file, if it is there. */
void folder_remove(const char *name);

/* Makes it the current folder, and the one before again. */
void folder_enter(void);
void folder_leave(void);

#endif
