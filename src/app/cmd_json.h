/* What the commands share of writing and reading JSON. */
#ifndef HV_APP_CMD_JSON_H
#define HV_APP_CMD_JSON_H

#include <jansson.h>
#include <stddef.h>

/* Sets the member `name` to this text or, if it is no UTF-8, `name`_base64 to its bytes. data NULL: `name` is null. */
void hv_json_put_bytes(json_t *object, const char *name, const char *data, size_t length);

/* Padded, RFC 4648; the caller frees. */
char *hv_json_base64(const char *data, size_t length);

#endif
