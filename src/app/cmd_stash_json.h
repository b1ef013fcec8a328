/* A record as a line of JSON, for `harvestd stash`. */
#ifndef HV_APP_CMD_STASH_JSON_H
#define HV_APP_CMD_STASH_JSON_H

#include <jansson.h>
#include <stddef.h>

#include "base/error.h"
#include "harvest_stash.h"

struct hv_stash_line {
    struct harvest_stash_record record; /* points into what follows and into the default topic */
    json_t *root;
    struct harvest_stash_header *headers;
    void *key, *value; /* decoded from base64, or NULL */
};

/* Reads one line (length bytes, without its end). `topic` is for lines without one; NULL: they are errors. Returns 0 and
 * the caller gives ret to hv_stash_line_free, or -1 with err. What a record may be is not checked here. */
int hv_stash_line_parse(const char *text, size_t length, const char *topic, struct hv_stash_line *ret,
                        struct hv_error *err);
void hv_stash_line_free(struct hv_stash_line *line);

#endif
