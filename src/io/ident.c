/* See ident.h. */
#include "io/ident.h"

#include <uuid/uuid.h>

void hv_ident_new(uint8_t out[16]) {
    uuid_generate_random(out);
}

void hv_ident_text(const uint8_t uuid[16], char out[HV_IDENT_TEXT]) {
    uuid_unparse_lower(uuid, out);
}
