/* See settings_secret.h. */
#include "rt/settings_secret.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/text.h"

/* ---- The environment ---- */

struct growing {
    char *text;
    size_t length;
};

static void add(struct growing *g, const char *text, size_t length) {
    g->text = hv_realloc(g->text, g->length + length + 1, 1);
    memcpy(g->text + g->length, text, length);
    g->length += length;
    g->text[g->length] = '\0';
}

static size_t name_length(const char *text) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
    static const char also[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";
    return strspn(text, letters) == 0 ? 0 : strspn(text, also);
}

/* `text` follows a "${". Adds what it stands for and returns where it ends, or NULL with err. */
static const char *put_in(struct growing *g, const char *text, struct hv_error *err) {
    char name[100], shown[120];
    size_t length = name_length(text);
    const char *after = text + length, *end = strchr(after, '}'), *instead = NULL;
    if (end != NULL && strncmp(after, ":-", 2) == 0) {
        instead = after + 2;
    }
    if (length == 0 || length >= sizeof name || end == NULL || (instead == NULL && end != after)) {
        hv_error_set(err, "after ${ has to follow NAME} or NAME:-text}, with the name of an environment variable; for a "
                          "value that holds ${ itself write $${");
        return NULL;
    }
    memcpy(name, text, length);
    name[length] = '\0';
    const char *value = getenv(name);
    if (instead != NULL && (value == NULL || value[0] == '\0')) {
        add(g, instead, (size_t)(end - instead));
    } else if (value == NULL) {
        hv_error_set(err, "the environment variable %s is not set; set it where the program is started, or write ${%s:-text}",
                     hv_text_show(name, shown, sizeof shown), name);
        return NULL;
    } else {
        add(g, value, strlen(value));
    }
    return end + 1;
}

char *hv_secret_expand(const char *value, struct hv_error *err) {
    struct growing g = {NULL, 0};
    add(&g, "", 0);
    while (*value != '\0') {
        size_t plain = strcspn(value, "$");
        add(&g, value, plain);
        value += plain;
        if (strncmp(value, "$${", 3) == 0) {
            add(&g, "${", 2);
            value += 3;
        } else if (strncmp(value, "${", 2) == 0) {
            value = put_in(&g, value + 2, err);
            if (value == NULL) {
                free(g.text);
                return NULL;
            }
        } else if (*value == '$') {
            add(&g, value++, 1);
        }
    }
    return g.text;
}

/* ---- Files ---- */

static int open_file(const char *path, bool *open_to_all, struct hv_error *err) {
    struct stat info;
    char shown[100];
    hv_text_show(path, shown, sizeof shown);
    if (path[0] == '\0') {
        return hv_error_set(err, "no file is named");
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* not to wait for the other end of a pipe */
    if (fd < 0) {
        return hv_error_set(err, "the file %s cannot be opened: %s", shown, strerror(errno));
    }
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(fd);
        return hv_error_set(err, "%s is no regular file", shown);
    }
    if (open_to_all != NULL) {
        *open_to_all = (info.st_mode & S_IROTH) != 0;
    }
    return fd;
}

/* Returns how many bytes, at most `size`, or -1 with errno. */
static ssize_t read_whole(int fd, char *out, size_t size) {
    size_t length = 0;
    while (length < size) {
        ssize_t n = read(fd, out + length, size - length);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -1;
        }
        if (n == 0) {
            break;
        }
        length += (size_t)n;
    }
    return (ssize_t)length;
}

static int vet(const char *path, const char *text, size_t length, bool lines, struct hv_error *err) {
    char shown[100];
    hv_text_show(path, shown, sizeof shown);
    if (length == 0) {
        return hv_error_set(err, "the file %s is empty", shown);
    }
    if (length > HV_SECRET_FILE_MAX) {
        return hv_error_set(err, "the file %s is larger than %d bytes; that is not what was meant", shown, HV_SECRET_FILE_MAX);
    }
    if (memchr(text, '\0', length) != NULL) {
        return hv_error_set(err, "the file %s holds a NUL byte; it is to be text", shown);
    }
    if (!lines && memchr(text, '\n', length) != NULL) {
        return hv_error_set(err, "the file %s holds more than one line; it is to hold the value and nothing else", shown);
    }
    return 0;
}

char *hv_secret_read_file(const char *path, bool lines, bool *open_to_all, struct hv_error *err) {
    char shown[100];
    int fd = open_file(path, open_to_all, err);
    if (fd < 0) {
        return NULL;
    }
    char *text = hv_calloc(HV_SECRET_FILE_MAX + 3, 1); /* one byte too many, line ends included, is noticed */
    ssize_t got = read_whole(fd, text, HV_SECRET_FILE_MAX + 2);
    int why = errno;
    close(fd);
    size_t length = got < 0 ? 0 : (size_t)got;
    while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == '\r')) {
        text[--length] = '\0';
    }
    if (got < 0) {
        hv_error_set(err, "the file %s cannot be read: %s", hv_text_show(path, shown, sizeof shown), strerror(why));
    }
    if (got >= 0 && vet(path, text, length, lines, err) == 0) {
        return text;
    }
    free(text);
    return NULL;
}
