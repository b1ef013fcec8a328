/* See cmd_pump_options.h. */
#include "app/cmd_pump_options.h"

#include <inttypes.h>
#include <string.h>

#include "app/options.h"
#include "base/text.h"
#include "core/record.h"

#define AT(field) offsetof(struct hv_options, field)
#define DAYS(n) HV_SECONDS(86400 * (n))

enum { STATEMENT_MAX = 64 << 20, PER_RECORD = 200 }; /* bytes of one transaction's statement at most; without values */

static const struct hv_option rows[] = {
    {.name = "--topic", .letter = 't', .type = HV_OPTION_TEXTS, .value = "TOPIC", .offset = AT(pump_topics),
     .help = "where records go; may be repeated: then each key has one of them"},
    {.name = "--records", .letter = 'n', .type = HV_OPTION_COUNT, .value = "N", .min = 1, .max = 1000000000000000,
     .offset = AT(pump.records), .help = "write so many, then end (10000, unless --duration is given)"},
    {.name = "--duration", .type = HV_OPTION_DURATION, .value = "TIME", .min = 1, .max = DAYS(365),
     .offset = AT(pump.duration), .help = "write for so long at most"},
    {.name = "--keys", .letter = 'k', .type = HV_OPTION_COUNT, .value = "N", .preset = "10", .min = 1, .max = 1000000,
     .offset = AT(pump.keys), .help = "number of keys, pump-0, pump-1, ..."},
    {.name = "--connections", .type = HV_OPTION_COUNT, .value = "N", .preset = "1", .min = 1, .max = 100,
     .offset = AT(pump.connections), .help = "to the database; each key belongs to one, so that its writes are serialised"},
    {.name = "--transaction", .type = HV_OPTION_COUNT, .value = "N", .preset = "20", .min = 1, .max = 100000,
     .offset = AT(pump.transaction), .help = "records in one transaction"},
    {.name = "--rate", .type = HV_OPTION_COUNT, .value = "N", .min = 1, .max = 100000000, .offset = AT(pump.rate),
     .help = "records a second, all connections together"},
    {.name = "--interval", .type = HV_OPTION_DURATION, .value = "TIME", .min = 1, .max = DAYS(1),
     .offset = AT(pump.interval), .help = "wait between two transactions of a connection"},
    {.name = "--value-size", .type = HV_OPTION_SIZE, .value = "SIZE", .preset = "200", .min = 0, .max = 16 << 20,
     .offset = AT(pump.value_size), .help = "bytes of a value"},
    {.name = "--blank", .type = HV_OPTION_COUNT, .value = "PERCENT", .preset = "0", .min = 0, .max = 100,
     .offset = AT(pump.blank), .help = "of the records have no value (NULL)"},
    {.name = "--rollback", .type = HV_OPTION_COUNT, .value = "PERCENT", .preset = "0", .min = 0, .max = 90,
     .offset = AT(pump.rollback), .help = "of the transactions are rolled back; their records do not count as written"},
    {.name = "--progress", .type = HV_OPTION_DURATION, .value = "TIME", .preset = "5s", .min = HV_MS(100), .max = DAYS(1),
     .offset = AT(pump.progress), .help = "how often to tell rates, on standard error"},
    {.name = "--json", .offset = AT(pump.json), .help = "the summary as one JSON object"},
    {.name = "--verify", .offset = AT(pump.verify),
     .help = "consume the topics from where they end now, and judge what arrives"},
    {.name = "--verify-timeout", .type = HV_OPTION_DURATION, .value = "TIME", .preset = "30s", .min = HV_MS(100),
     .max = DAYS(1), .offset = AT(pump.verify_timeout),
     .help = "after writing: give up when nothing new arrived for so long"},
    {.name = "--verify-linger", .type = HV_OPTION_DURATION, .value = "TIME", .preset = "1s", .min = 0, .max = DAYS(1),
     .offset = AT(pump.verify_linger),
     .help = "when all has arrived: look out for duplicates and rolled back records for so long"},
    {.name = "--verify-memory", .type = HV_OPTION_SIZE, .value = "SIZE", .preset = "256MiB", .min = 1 << 16,
     .max = (int64_t)1 << 40, .offset = AT(pump.verify_memory),
     .help = "writing waits while what is outstanding takes more than this: 10 bytes a record, at most 160"},
};

const struct hv_option_table hv_pump_option_table = {rows, sizeof rows / sizeof rows[0]};

const char hv_pump_about[] =
    "Each record has a header Seq, its number within its key, and a header Pump by which the\n"
    "pump knows it again: of which run it is, and what it has to hold.\n"
    "\n"
    "--verify counts what did not arrive (lost), what arrived first after a later record of its\n"
    "key (out of order), what differs from what was written (corrupted), what was rolled back\n"
    "and came nevertheless (phantom), what the pump never wrote (invented), and what came again\n"
    "(duplicates, which are allowed). All but the last make the exit code 1.\n"
    "Latency is the time from when the database's reply to the commit was read to when the\n"
    "record was read from Kafka, first deliveries only: 0 when the record was quicker than the\n"
    "reply. Percentiles are at most 0.8 % too high.\n"
    "SIGINT or SIGTERM ends writing, the next one waiting for what was written.\n";

static int check_topic(const char *topic, struct hv_error *err) {
    char shown[100];
    if (!hv_topic_is_legal(topic, strlen(topic))) {
        return hv_error_set(err, "--topic: %s is no name of a topic; it has 1 to 249 letters, digits, '.', '_' and '-'",
                            hv_text_show(topic, shown, sizeof shown));
    }
    return 0;
}

int hv_pump_options_check(const struct hv_options *options, struct hv_error *err) {
    const struct hv_pump_options *o = &options->pump;
    const struct hv_option_texts *topics = &options->pump_topics;
    if (topics->count == 0) {
        return hv_error_set(err, "--topic is missing: where shall the records go?");
    }
    for (size_t i = 0; i < topics->count; i++) {
        if (check_topic(topics->list[i], err) != 0) {
            return -1;
        }
        for (size_t j = 0; j < i; j++) {
            if (strcmp(topics->list[i], topics->list[j]) == 0) {
                return hv_error_set(err, "--topic %s is given twice; leave one of the two", topics->list[i]);
            }
        }
    }
    if (o->keys < o->connections) {
        return hv_error_set(err, "--keys: %" PRIu64 " are too few; each of the %" PRIu64 " connections needs one of its own",
                            o->keys, o->connections);
    }
    if (o->keys < topics->count) {
        return hv_error_set(err, "--keys: %" PRIu64 " are too few; each of the %zu topics needs one", o->keys, topics->count);
    }
    if (o->rate > 0 && o->interval > 0) {
        return hv_error_set(err, "--rate and --interval are both given; leave one of the two");
    }
    if (o->transaction * (o->value_size + PER_RECORD) > STATEMENT_MAX) {
        return hv_error_set(err, "--transaction: %" PRIu64 " records of %" PRIu64 " bytes are too many; 64 MiB are the limit",
                            o->transaction, o->value_size);
    }
    return 0;
}
