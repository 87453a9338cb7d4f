/* Finds the files of the page. */
#include "admin/dashboard.h"

#include <string.h>

const struct dashboard_file *dashboard_find(const char *path)
{
    for (size_t i = 0; i < dashboard_file_count; i++) {
        if (strcmp(dashboard_files[i].path, path) == 0)
            return &dashboard_files[i];
    }
    return NULL;
}
