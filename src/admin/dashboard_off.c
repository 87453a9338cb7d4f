/* The files of the page in a server that is built without it: none. */
#include "admin/dashboard.h"

const struct dashboard_file dashboard_files[1] = {{.path = NULL}}; /* C has no empty arrays */
const size_t dashboard_file_count = 0;
