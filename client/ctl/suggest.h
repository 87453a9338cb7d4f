/* What an ID that nobody has was probably meant to be. */
#ifndef CTL_SUGGEST_H
#define CTL_SUGGEST_H

struct api;

/* Says that there is no such client, with the nearest IDs that there are. */
void suggest_ids(struct api *api, const char *id);

#endif
