/* See cmd_blocked_options.h. */
#include "app/cmd_blocked_options.h"

#include "app/options.h"

#define AT(field) offsetof(struct hv_options, field)

static const struct hv_option rows[] = {
    {.name = "--topic", .letter = 't', .type = HV_OPTION_TEXT, .value = "TOPIC", .offset = AT(blocked.topic),
     .help = "only keys whose record is for this topic"},
    {.name = "--limit", .type = HV_OPTION_COUNT, .value = "N", .min = 1, .max = 1000000000, .offset = AT(blocked.limit),
     .help = "at most so many keys, the oldest records first (default: all)"},
    {.name = "--json", .offset = AT(blocked.json), .help = "an object of JSON a line instead of tables"},
};

const struct hv_option_table hv_blocked_option_table = {rows, sizeof rows / sizeof rows[0]};

const char hv_blocked_about[] =
    "It asks the daemon that runs with this configuration, through its control_socket, so\n"
    "that has to be set for both, and the command to be run by the daemon's user or root.\n"
    "What is blocked is known to the instance that leads.\n"
    "\n"
    "  id        of the record that is refused; later records of its key wait behind it\n"
    "  retry_in  when it is tried again; - when it waits for its topic\n"
    "  shard N   (as key) stands for keys of one shard, when too many are in trouble\n"
    "\n"
    "Topics that take nothing at all are listed first. Values are never shown. With --json\n"
    "there is a line for each topic and key, and a last one of type \"end\".\n";
