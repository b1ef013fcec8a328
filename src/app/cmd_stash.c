/* harvestd stash: writes records to the outbox, one made of options or many from JSON lines. It ends by itself and serves
 * nobody, so it may block. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/cmd_stash_json.h"
#include "app/cmd_stash_lines.h"
#include "app/commands.h"
#include "app/database.h"
#include "base/memory.h"
#include "harvest_stash.h"
#include "io/loop.h"

#define BATCH_DEFAULT 1000
#define PAUSE_MS 200
#define PROGRESS_INTERVAL HV_MS(200)

struct stashing {
    const struct hv_options *options;
    PGconn *conn;
    struct harvest_stash *stash;
    struct hv_stash_lines lines;
    uint64_t written;    /* records of transactions that are done */
    uint64_t in_batch;   /* records of the open one; 0: none is open */
    uint64_t first_line; /* of the open one */
    bool progress;       /* to a terminal */
    hv_time progress_at;
};

static int fail(const char *what) {
    fprintf(stderr, "harvestd: %s\n", what);
    return 1;
}

/* ---- transactions ---- */

/* Returns 0, or -1 with the server's reason. A COMMIT that ends a failed transaction says ROLLBACK. */
static int run(PGconn *conn, const char *sql, const char *tag, struct hv_error *err) {
    PGresult *result = PQexec(conn, sql);
    int rc = 0;
    if (PQresultStatus(result) != PGRES_COMMAND_OK) {
        hv_pg_first_line(err, PQerrorMessage(conn));
        rc = -1;
    } else if (strcmp(PQcmdStatus(result), tag) != 0) {
        rc = hv_error_set(err, "%s was answered with %s", sql, PQcmdStatus(result));
    }
    PQclear(result);
    return rc;
}

static int end(struct stashing *s, struct hv_error *err) {
    const char *sql = s->options->stash.dry_run ? "ROLLBACK" : "COMMIT";
    if (run(s->conn, sql, sql, err) != 0) {
        return -1;
    }
    s->written += s->in_batch;
    s->in_batch = 0;
    return 0;
}

static int print_count(const struct stashing *s) {
    printf("%" PRIu64 " record%s %s\n", s->written, s->written == 1 ? "" : "s",
           s->options->stash.dry_run ? "would have been written" : "written");
    return 0;
}

/* ---- one record ---- */

/* The whole file; the caller frees. Bounded as a line is. */
static int read_value(const char *path, char **ret, size_t *ret_length, struct hv_error *err) {
    int fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    size_t size = 0, length = 0;
    char *data = NULL;
    ssize_t n = fd < 0 ? -1 : 1;
    while (n > 0 && length <= HV_STASH_LINE_MAX) {
        if (length == size) {
            size = size == 0 ? 65536 : 2 * size;
            data = hv_realloc(data, size, 1);
        }
        do {
            n = read(fd, data + length, size - length);
        } while (n < 0 && errno == EINTR);
        length += n > 0 ? (size_t)n : 0;
    }
    int saved = errno;
    if (fd > STDIN_FILENO) {
        close(fd);
    }
    if (n < 0 || length > HV_STASH_LINE_MAX) {
        free(data);
        return n < 0 ? hv_error_set(err, "--value-file: %s cannot be read: %s", path, strerror(saved))
                     : hv_error_set(err, "--value-file: %s has more than %zu MiB", path, HV_STASH_LINE_MAX >> 20);
    }
    *ret = data;
    *ret_length = length;
    return 0;
}

static struct harvest_stash_header *make_headers(const struct hv_option_texts *texts) {
    struct harvest_stash_header *headers = hv_calloc(texts->count, sizeof *headers);
    for (size_t i = 0; i < texts->count; i++) {
        const char *equals = strchr(texts->list[i], '='); /* checked to be there */
        headers[i].name = hv_must(strndup(texts->list[i], (size_t)(equals - texts->list[i])));
        headers[i].value = harvest_stash_text(equals + 1);
    }
    return headers;
}

static void free_headers(struct harvest_stash_header *headers, size_t count) {
    while (count-- > 0) {
        free((char *)headers[count].name);
    }
    free(headers);
}

/* Into the open transaction; begins one where there is none. One-off: there may be a pooler in between. */
static int put(struct stashing *s, const struct harvest_stash_record *record, struct hv_error *err) {
    struct harvest_error why;
    if (s->in_batch == 0 && run(s->conn, "BEGIN", "BEGIN", err) != 0) {
        return -1;
    }
    if (harvest_stash_write(s->stash, s->conn, record, &why) != HARVEST_STASH_OK) {
        return hv_error_set(err, "%s", why.text);
    }
    s->in_batch++;
    return 0;
}

static int stash_record(struct stashing *s) {
    const struct hv_options *o = s->options;
    struct hv_error err;
    char *file = NULL;
    size_t file_length = 0;
    if (o->stash.value_file != NULL && read_value(o->stash.value_file, &file, &file_length, &err) != 0) {
        return fail(err.text);
    }
    struct harvest_stash_header *headers = make_headers(&o->stash_headers);
    struct harvest_stash_record record = {
        .topic = o->stash.topic,
        .key = harvest_stash_text(o->stash_keys.list[0]),
        .headers = headers,
        .header_count = o->stash_headers.count,
    };
    if (file != NULL) {
        record.value = (struct harvest_stash_bytes){file, file_length};
    } else if (!o->stash.null) {
        record.value = harvest_stash_text(o->stash_values.list[0]);
    }
    int code = put(s, &record, &err) != 0 || end(s, &err) != 0 ? fail(err.text) : print_count(s);
    free_headers(headers, o->stash_headers.count);
    free(file);
    return code;
}

/* ---- many ---- */

static void show_progress(struct stashing *s, bool last) {
    hv_time now = hv_loop_clock();
    if (s->progress && (last || now - s->progress_at >= PROGRESS_INTERVAL)) {
        s->progress_at = now;
        fprintf(stderr, last ? "\r\033[K" : "\r%" PRIu64 " records", s->written + s->in_batch);
    }
}

static bool is_blank(const char *text, size_t length) {
    while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t' || text[length - 1] == '\r')) {
        length--;
    }
    return length == 0;
}

static int write_line(struct stashing *s, const char *text, size_t length, struct hv_error *err) {
    struct hv_stash_line line;
    if (s->in_batch == 0) {
        s->first_line = s->lines.number;
    }
    if (hv_stash_line_parse(text, length, s->options->stash.topic, &line, err) != 0) {
        return -1;
    }
    int rc = put(s, &line.record, err);
    hv_stash_line_free(&line);
    return rc;
}

/* What is committed, and what is to be done. */
static int tell_bad_line(struct stashing *s, uint64_t line, const struct hv_error *err) {
    show_progress(s, true);
    fprintf(stderr, "harvestd: line %" PRIu64 ": %s\n", line, err->text);
    uint64_t from = s->in_batch > 0 ? s->first_line : line;
    if (s->written > 0 && !s->options->stash.dry_run) {
        fprintf(stderr, "harvestd: all before line %" PRIu64 " is written, nothing from there on: go on with that line\n",
                from);
    } else {
        fputs("harvestd: nothing was written\n", stderr);
    }
    print_count(s);
    return 1;
}

static int tell_end_failed(struct stashing *s, const struct hv_error *err) {
    bool unknown = PQstatus(s->conn) != CONNECTION_OK;
    show_progress(s, true);
    fprintf(stderr, "harvestd: lines %" PRIu64 " to %" PRIu64 ": %s\n", s->first_line, s->lines.number, err->text);
    fprintf(stderr, "harvestd: all before line %" PRIu64 " is written; whether these are, %s\n", s->first_line,
            unknown ? "is unknown: look for them in the table before going on" : "is certain: they are not");
    print_count(s);
    return 1;
}

static int stash_lines(struct stashing *s) {
    uint64_t batch = s->options->stash.batch;
    struct hv_error err;
    s->progress = isatty(STDERR_FILENO);
    if (isatty(STDIN_FILENO)) {
        fputs("harvestd: reading JSON lines from standard input; Ctrl-D ends\n", stderr);
    }
    for (;;) {
        const char *text;
        size_t length;
        bool may_pause = s->in_batch > 0 && batch == 0;
        enum hv_stash_got got = hv_stash_lines_next(&s->lines, may_pause ? PAUSE_MS : -1, &text, &length, &err);
        if (got == HV_STASH_BROKEN ||
            (got == HV_STASH_LINE && !is_blank(text, length) && write_line(s, text, length, &err) != 0)) {
            return tell_bad_line(s, s->lines.number, &err);
        }
        bool full = s->in_batch >= (batch > 0 ? batch : BATCH_DEFAULT);
        if (s->in_batch > 0 && (got != HV_STASH_LINE || full) && end(s, &err) != 0) {
            return tell_end_failed(s, &err);
        }
        show_progress(s, got == HV_STASH_END);
        if (got == HV_STASH_END) {
            return print_count(s);
        }
    }
}

int hv_cmd_stash(const struct hv_settings *settings, const struct hv_options *options) {
    struct stashing s = {.options = options, .lines = {.fd = STDIN_FILENO}};
    struct harvest_error why;
    struct hv_pg_failure failure;
    int code = 1;
    if (harvest_stash_new(settings->outbox_table, &s.stash, &why) != HARVEST_STASH_OK) {
        return fail(why.text);
    }
    s.conn = hv_database_connect(settings, "harvestd stash", &failure);
    if (s.conn == NULL) {
        fprintf(stderr, "harvestd: %s; %s\n", failure.error.text, hv_pg_advice(failure.trouble));
    } else {
        code = hv_stash_options_name_a_record(options) ? stash_record(&s) : stash_lines(&s);
    }
    PQfinish(s.conn); /* ends an open transaction, too */
    hv_stash_lines_free(&s.lines);
    harvest_stash_free(s.stash);
    return code;
}
