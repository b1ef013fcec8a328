/* See cmd_stash_options.h. */
#include "app/cmd_stash_options.h"

#include <string.h>

#include "app/options.h"

#define AT(field) offsetof(struct hv_options, field)

static const struct hv_option rows[] = {
    {.name = "--topic", .letter = 't', .type = HV_OPTION_TEXT, .value = "TOPIC", .offset = AT(stash.topic),
     .help = "topic of the record; with JSON lines of those that name none"},
    {.name = "--key", .letter = 'k', .type = HV_OPTION_TEXTS, .value = "KEY", .offset = AT(stash_keys), .help = "its key"},
    {.name = "--value", .type = HV_OPTION_TEXTS, .value = "VALUE", .offset = AT(stash_values), .help = "its value"},
    {.name = "--value-file", .type = HV_OPTION_TEXT, .value = "FILE", .offset = AT(stash.value_file),
     .help = "its value, byte for byte; - for standard input"},
    {.name = "--null", .offset = AT(stash.null), .help = "no value: a tombstone"},
    {.name = "--header", .letter = 'H', .type = HV_OPTION_TEXTS, .value = "NAME=VALUE", .offset = AT(stash_headers),
     .help = "a header; may be repeated"},
    {.name = "--batch", .type = HV_OPTION_COUNT, .value = "N", .min = 1, .max = 10000000, .offset = AT(stash.batch),
     .help = "JSON lines of one transaction, exactly (default: up to 1000, fewer whenever the input pauses)"},
    {.name = "--dry-run", .offset = AT(stash.dry_run),
     .help = "do everything but commit: each transaction is rolled back at its end"},
};

const struct hv_option_table hv_stash_option_table = {rows, sizeof rows / sizeof rows[0]};

const char hv_stash_about[] =
    "With --key it writes one record, made of options. Without, it reads JSON lines from\n"
    "standard input, an object each:\n"
    "\n"
    "  {\"topic\": \"orders\", \"key\": \"customer-17\", \"value\": \"paid\", \"headers\": {\"type\": \"OrderPaid\"}}\n"
    "\n"
    "  key, value  text; value may be null (a tombstone). key_base64, value_base64: bytes\n"
    "  headers     an object; or, as names may repeat, [[\"name\", \"value\"], ...]\n"
    "\n"
    "The lines that `kcat -C -J` prints are understood as well. When a line is bad, what\n"
    "was committed before stays, the rest of its transaction is rolled back, and the line to\n"
    "go on with is told.\n";

bool hv_stash_options_name_a_record(const struct hv_options *o) {
    return o->stash_keys.count > 0 || o->stash_values.count > 0 || o->stash_headers.count > 0 ||
           o->stash.value_file != NULL || o->stash.null;
}

int hv_stash_options_check(const struct hv_options *o, struct hv_error *err) {
    if (!hv_stash_options_name_a_record(o)) {
        return 0;
    }
    if (o->stash.topic == NULL || o->stash_keys.count == 0) {
        return hv_error_set(err, "a record needs --topic and --key; without --key, --value and --header, JSON lines are "
                                 "read from standard input");
    }
    if (o->stash_keys.count > 1 || o->stash_values.count > 1) {
        return hv_error_set(err, "--key or --value is given twice; for several records write JSON lines to standard input");
    }
    if (o->stash_values.count + (o->stash.value_file != NULL) + o->stash.null != 1) {
        return hv_error_set(err, "a record needs one of --value, --value-file and --null");
    }
    if (o->stash.batch > 0) {
        return hv_error_set(err, "--batch is for JSON lines, and here a record is given");
    }
    for (size_t i = 0; i < o->stash_headers.count; i++) {
        if (strchr(o->stash_headers.list[i], '=') == NULL) {
            return hv_error_set(err, "--header: write NAME=VALUE; the value may be empty, the = has to be there");
        }
    }
    return 0;
}
