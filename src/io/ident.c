/* See ident.h. */
#include "io/ident.h"

#include <uuid/uuid.h>

void hv_ident_new(uint8_t out[16]) {
    uuid_generate_random(out);
}
