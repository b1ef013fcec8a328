/* See cmd_park_options.h. */
#include "app/cmd_park_options.h"

#include "app/cmd_park_select.h"
#include "app/options.h"

#define AT(field) offsetof(struct hv_options, field)

static const struct hv_option rows[] = {
    {.name = "--id", .type = HV_OPTION_TEXTS, .value = "IDS", .offset = AT(park_ids),
     .help = "records with these ids: 7, or 10-20, or 30- for all from there on, or several with commas between; may be repeated"},
    {.name = "--key", .letter = 'k', .type = HV_OPTION_TEXTS, .value = "KEY", .offset = AT(park_keys),
     .help = "records with this key; may be repeated"},
    {.name = "--topic", .letter = 't', .type = HV_OPTION_TEXTS, .value = "TOPIC", .offset = AT(park_topics),
     .help = "records for this topic; may be repeated"},
    {.name = "--class", .type = HV_OPTION_TEXTS, .value = "CLASS", .offset = AT(park_classes),
     .help = "records with this class of failure, as list shows it; may be repeated"},
    {.name = "--older-than", .type = HV_OPTION_DURATION, .value = "AGE", .min = 1, .max = HV_SECONDS(3155760000), .offset = AT(park.older_than),
     .help = "records that were parked longer ago, such as 90m"},
    {.name = "--newer-than", .type = HV_OPTION_DURATION, .value = "AGE", .min = 1, .max = HV_SECONDS(3155760000), .offset = AT(park.newer_than),
     .help = "records that were parked since then"},
    {.name = "--all", .offset = AT(park.all), .help = "replay, drop: every record"},
    {.name = "--limit", .type = HV_OPTION_COUNT, .value = "N", .min = 1, .max = 1000000000, .offset = AT(park.limit),
     .help = "at most so many (list: 100 if not given)"},
    {.name = "--after", .type = HV_OPTION_TEXT, .value = "ID", .offset = AT(park.after), .help = "list: from the next higher id on"},
    {.name = "--json", .offset = AT(park.json), .help = "an object of JSON a line for each record, instead of a table"},
    {.name = "--raw", .offset = AT(park.raw), .help = "show: the value and nothing else, byte for byte"},
    {.name = "--dry-run", .offset = AT(park.dry_run), .help = "replay, drop: only tell what would be done"},
    {.name = "--allow-reorder", .offset = AT(park.allow_reorder),
     .help = "replay: also records that come out of order, or of which that cannot be told"},
    {.name = "--keep-id", .offset = AT(park.keep_id),
     .help = "replay: under the old id instead of a new one; then no record is certain to be in order"},
    {.name = "--yes", .offset = AT(park.yes), .help = "drop: do not ask"},
};

const struct hv_option_table hv_park_option_table = {rows, sizeof rows / sizeof rows[0]};

const char *const hv_park_actions[] = {
    [HV_PARK_LIST] = "list", [HV_PARK_SHOW] = "show", [HV_PARK_REPLAY] = "replay", [HV_PARK_DROP] = "drop", NULL};

const char hv_park_about[] =
    "  list    what is parked, and why; never the values\n"
    "  show    one record (--id) with its headers and its value\n"
    "  replay  put records back into the outbox\n"
    "  drop    delete records; they are never sent\n"
    "\n"
    "Records are chosen by --id, --key, --topic, --class and age; all that is given has to\n"
    "hold. replay and drop need one of these, or --all.\n"
    "\n"
    "A record is replayed at the end of the outbox, under a new id. That is its place in the\n"
    "order of its key if no later record of that key has gone out, or is on its way. replay\n"
    "says of each record whether that is so:\n"
    "\n"
    "  yes      no later record of its key left the outbox, and none is in it\n"
    "  no       a later one left the outbox\n"
    "  unknown  a later one is in the outbox and may have been sent; or an earlier one of its\n"
    "           key is still parked and is not replayed with it; or what left the outbox was\n"
    "           not noted all the time by the trigger of `harvestd schema --park`\n"
    "\n"
    "Only the first are replayed, unless --allow-reorder is given. Writers of the outbox wait\n"
    "a moment meanwhile. Records that stay parked make the exit code 1.\n";

static bool selects(const struct hv_options *o) {
    return o->park_ids.count + o->park_keys.count + o->park_topics.count + o->park_classes.count > 0 || o->park.older_than > 0 ||
           o->park.newer_than > 0;
}

enum { LIST = 1 << HV_PARK_LIST, SHOW = 1 << HV_PARK_SHOW, REPLAY = 1 << HV_PARK_REPLAY, DROP = 1 << HV_PARK_DROP };

static int check_belonging(const struct hv_options *o, struct hv_error *err) {
    const struct {
        bool given;
        int actions;
        const char *name, *of;
    } options[] = {
        {o->park.all, REPLAY | DROP, "--all", "replay and drop (list shows all if nothing is chosen)"},
        {o->park.limit > 0, LIST | REPLAY | DROP, "--limit", "list, replay and drop"},
        {o->park.after != NULL, LIST, "--after", "list"},
        {o->park.raw, SHOW, "--raw", "show"},
        {o->park.dry_run, REPLAY | DROP, "--dry-run", "replay and drop"},
        {o->park.allow_reorder, REPLAY, "--allow-reorder", "replay"},
        {o->park.keep_id, REPLAY, "--keep-id", "replay"},
        {o->park.yes, DROP, "--yes", "drop"},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        if (options[i].given && (options[i].actions & 1 << o->action) == 0) {
            return hv_error_set(err, "%s is for %s", options[i].name, options[i].of);
        }
    }
    return 0;
}

int hv_park_options_check(const struct hv_options *o, struct hv_error *err) {
    struct hv_park_ranges ranges = {0};
    int64_t after;
    if (o->action < 0) {
        return hv_error_set(err, "park needs one of list, show, replay and drop behind it");
    }
    if (check_belonging(o, err) != 0 || hv_park_parse_ids(&o->park_ids, &ranges, err) != 0) {
        return -1;
    }
    bool one = ranges.count == 1 && ranges.lo[0] == ranges.hi[0];
    hv_park_ranges_free(&ranges);
    if (o->park.after != NULL && hv_park_parse_id(o->park.after, &after) != 0) {
        return hv_error_set(err, "--after: an id is a whole number");
    }
    if (o->action == HV_PARK_SHOW && (!one || o->park_keys.count + o->park_topics.count + o->park_classes.count > 0 ||
                                      o->park.older_than > 0 || o->park.newer_than > 0)) {
        return hv_error_set(err, "show takes one record: --id ID");
    }
    if (o->action == HV_PARK_SHOW && o->park.raw && o->park.json) {
        return hv_error_set(err, "--raw and --json are both given; leave one of the two");
    }
    if (o->action >= HV_PARK_REPLAY && !selects(o) && !o->park.all) {
        return hv_error_set(err, "nothing is chosen: --id, --key, --topic, --class, --older-than, --newer-than, or --all");
    }
    if (selects(o) && o->park.all) {
        return hv_error_set(err, "--all, but something is chosen besides; leave one of the two");
    }
    return 0;
}
