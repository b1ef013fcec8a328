/* See cmd_json.h. */
#include "app/cmd_json.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"

char *hv_json_base64(const char *data, size_t length) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *out = hv_calloc((length + 2) / 3 * 4 + 1, 1), *at = out;
    for (size_t i = 0; i < length; i += 3) {
        uint32_t group = 0;
        for (size_t k = 0; k < 3; k++) {
            group = group << 8 | (i + k < length ? (unsigned char)data[i + k] : 0);
        }
        for (size_t k = 0; k < 4; k++) {
            *at++ = i + k > length ? '=' : digits[group >> (18 - 6 * k) & 63];
        }
    }
    return out;
}

void hv_json_put_bytes(json_t *object, const char *name, const char *data, size_t length) {
    char encoded_name[64];
    json_t *text = data == NULL ? json_null() : json_stringn(data, length);
    if (text != NULL) {
        json_object_set_new(object, name, text);
        return;
    }
    char *encoded = hv_json_base64(data, length);
    snprintf(encoded_name, sizeof encoded_name, "%s_base64", name);
    json_object_set_new(object, encoded_name, json_string(encoded));
    free(encoded);
}
