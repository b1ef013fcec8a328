/* See cmd_pump_report.h. */
#include "app/cmd_pump_report.h"

#include <inttypes.h>
#include <jansson.h>

#include "app/cmd_pump_record.h"
#include "base/memory.h"

enum { SHOWN_MAX = 10 }; /* records that are lost */

static double seconds(hv_time duration) {
    return (double)duration / 1e6;
}

static double per_second(uint64_t count, hv_time duration) {
    return duration > 0 ? (double)count / seconds(duration) : 0;
}

static bool verified_well(const struct hv_pump_report *r) {
    const struct hv_ledger_counts *n = hv_ledger_counts(r->work->ledger);
    return n->missing == 0 && n->out_of_order == 0 && n->phantoms == 0 && n->invented == 0 && r->heard->corrupted == 0;
}

bool hv_pump_report_is_good(const struct hv_pump_report *r) {
    return r->failure == NULL && (r->heard == NULL || verified_well(r));
}

/* ---- text ---- */

static void row(FILE *out, const char *name, uint64_t value, const char *note) {
    fprintf(out, "%-13s %" PRIu64 "%s%s\n", name, value, note[0] == '\0' ? "" : "  ", note);
}

struct shown {
    FILE *out;
    unsigned count;
};

static bool show_missing(void *user, uint32_t key, uint64_t seq) {
    struct shown *shown = user;
    fprintf(shown->out, "%s" HV_PUMP_KEY_PREFIX "%" PRIu32 " Seq %" PRIu64, shown->count == 0 ? "              " : ", ", key,
            seq);
    return ++shown->count < SHOWN_MAX;
}

static void print_missing(const struct hv_pump_report *r, FILE *out) {
    struct shown shown = {.out = out};
    hv_ledger_each_missing(r->work->ledger, show_missing, &shown);
    if (shown.count > 0) {
        fputs(hv_ledger_counts(r->work->ledger)->missing > shown.count ? ", ...\n" : "\n", out);
    }
}

static void print_latency(const struct hv_histogram *latency, FILE *out) {
    fprintf(out, "%-13s p50 %.1f ms, p90 %.1f ms, p99 %.1f ms, max %.1f ms, from commit to consumed\n", "latency",
            (double)hv_histogram_quantile(latency, 500) / 1e3, (double)hv_histogram_quantile(latency, 900) / 1e3,
            (double)hv_histogram_quantile(latency, 990) / 1e3, (double)latency->max / 1e3);
}

static void print_verdict(const struct hv_pump_report *r, FILE *out) {
    const struct hv_ledger_counts *n = hv_ledger_counts(r->work->ledger);
    row(out, "arrived", n->arrived, "");
    row(out, "lost", n->missing, r->timed_out ? "given up: nothing new arrived for --verify-timeout" : "");
    print_missing(r, out);
    row(out, "out of order", n->out_of_order, "");
    row(out, "corrupted", r->heard->corrupted, "");
    row(out, "phantom", n->phantoms, "");
    row(out, "invented", n->invented, "");
    row(out, "duplicates", n->duplicates, "");
    row(out, "foreign", r->heard->foreign, "not of this run");
    if (hv_ledger_latency(r->work->ledger)->count > 0) {
        print_latency(hv_ledger_latency(r->work->ledger), out);
    }
    fputs(verified_well(r) ? "all is well\n" : "NOT well\n", out);
}

void hv_pump_report_text(const struct hv_pump_report *r, FILE *out) {
    const struct hv_ledger_counts *n = hv_ledger_counts(r->work->ledger);
    char note[120];
    snprintf(note, sizeof note, "records in %" PRIu64 " transactions and %.1f s: %.0f/s", r->work->transactions,
             seconds(r->writing), per_second(n->committed, r->writing));
    row(out, "written", n->committed, note);
    snprintf(note, sizeof note, "records in %" PRIu64 " transactions", r->work->rolled_back_transactions);
    row(out, "rolled back", r->work->rolled_back_records, note);
    if (n->unknown > 0) {
        row(out, "unknown", n->unknown, "the connection was lost during their commit: they may arrive or not");
    }
    if (r->heard != NULL) {
        print_verdict(r, out);
    }
    if (r->interrupted) {
        fputs("interrupted\n", out);
    }
    if (r->failure != NULL) {
        fprintf(out, "failed: %s\n", r->failure);
    }
}

void hv_pump_progress_text(struct hv_pump_progress *last, const struct hv_pump_work *work, hv_time started, hv_time now,
                           FILE *out) {
    const struct hv_ledger_counts *n = hv_ledger_counts(work->ledger);
    hv_time span = now - last->at;
    fprintf(out, "%7.1f s  written %" PRIu64 " (%.0f/s)", seconds(now - started), n->committed,
            per_second(n->committed - last->committed, span));
    if (work->options->pump.verify) {
        fprintf(out, "  arrived %" PRIu64 " (%.0f/s)  outstanding %" PRIu64, n->arrived,
                per_second(n->arrived - last->arrived, span), n->missing);
    }
    fputc('\n', out);
    *last = (struct hv_pump_progress){.at = now, .committed = n->committed, .arrived = n->arrived};
}

/* ---- JSON ---- */

static void put(json_t *object, const char *name, json_t *value) {
    if (json_object_set_new(object, name, value) != 0) {
        hv_must(NULL);
    }
}

static void put_count(json_t *object, const char *name, uint64_t value) {
    put(object, name, json_integer((json_int_t)value));
}

static json_t *latency_object(const struct hv_histogram *latency) {
    json_t *object = hv_must(json_object());
    put(object, "p50", json_real((double)hv_histogram_quantile(latency, 500) / 1e3));
    put(object, "p90", json_real((double)hv_histogram_quantile(latency, 900) / 1e3));
    put(object, "p99", json_real((double)hv_histogram_quantile(latency, 990) / 1e3));
    put(object, "max", json_real((double)latency->max / 1e3));
    return object;
}

static json_t *verify_object(const struct hv_pump_report *r) {
    const struct hv_ledger_counts *n = hv_ledger_counts(r->work->ledger);
    json_t *object = hv_must(json_object());
    put_count(object, "arrived", n->arrived);
    put_count(object, "lost", n->missing);
    put_count(object, "out_of_order", n->out_of_order);
    put_count(object, "corrupted", r->heard->corrupted);
    put_count(object, "phantom", n->phantoms);
    put_count(object, "invented", n->invented);
    put_count(object, "duplicates", n->duplicates);
    put_count(object, "foreign", r->heard->foreign);
    put(object, "latency_ms", latency_object(hv_ledger_latency(r->work->ledger)));
    put(object, "timed_out", json_boolean(r->timed_out));
    return object;
}

void hv_pump_report_json(const struct hv_pump_report *r, FILE *out) {
    const struct hv_ledger_counts *n = hv_ledger_counts(r->work->ledger);
    json_t *object = hv_must(json_object());
    char run[20];
    snprintf(run, sizeof run, "%016" PRIx64, r->work->run);
    put(object, "run", json_string(run));
    put_count(object, "written", n->committed);
    put_count(object, "transactions", r->work->transactions);
    put_count(object, "unknown", n->unknown);
    put_count(object, "rolled_back", r->work->rolled_back_records);
    put_count(object, "rolled_back_transactions", r->work->rolled_back_transactions);
    put(object, "seconds", json_real(seconds(r->writing)));
    put(object, "rate", json_real(per_second(n->committed, r->writing)));
    put(object, "interrupted", json_boolean(r->interrupted));
    put(object, "failure", r->failure == NULL ? json_null() : json_string(r->failure));
    put(object, "verify", r->heard == NULL ? json_null() : verify_object(r));
    put(object, "good", json_boolean(hv_pump_report_is_good(r)));
    json_dumpf(object, out, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    fputc('\n', out);
    json_decref(object);
}
