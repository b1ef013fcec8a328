/* See options.h. */
#include "app/options.h"

#include <assert.h>
#include <string.h>

#include "base/text.h"

struct parsing {
    struct hv_options *ret;
    bool command_seen, options_end;
    bool given[HV_COMMAND_COUNT + 1][HV_OPTIONS_MAX]; /* the last row: options of all */
};

static const struct hv_option_table *table_of(int command) {
    static const struct hv_option_table none;
    const struct hv_option_table *table =
        command == HV_COMMAND_COUNT ? &hv_options_of_all : hv_command_rows[command].options;
    return table == NULL ? &none : table;
}

/* Is `argument` this option? *value is what is glued to it (--config=FILE, -cFILE) or NULL. */
static bool names_option(const char *argument, const struct hv_option *option, const char **value) {
    const char *equals = strchr(argument, '=');
    size_t length = equals == NULL ? strlen(argument) : (size_t)(equals - argument);
    *value = NULL;
    if (strlen(option->name) == length && memcmp(option->name, argument, length) == 0) {
        *value = equals == NULL ? NULL : equals + 1;
        return true;
    }
    if (argument[1] == '-' || option->letter == 0 || argument[1] != option->letter) {
        return false;
    }
    *value = argument[2] == '\0' ? NULL : argument + 2;
    return argument[2] == '\0' || option->type != HV_OPTION_FLAG;
}

static const struct hv_option *find_in(const struct hv_option_table *table, const char *argument, const char **value) {
    for (size_t i = 0; i < table->count; i++) {
        if (names_option(argument, &table->rows[i], value)) {
            return &table->rows[i];
        }
    }
    return NULL;
}

static void try_names(struct hv_nearest *nearest, const struct hv_option_table *table) {
    for (size_t i = 0; i < table->count; i++) {
        hv_nearest_try(nearest, table->rows[i].name);
    }
}

static int unknown_option(const struct parsing *p, const char *argument, struct hv_error *err) {
    char shown[100], name[64];
    const char *value;
    snprintf(name, sizeof name, "%.*s", (int)strcspn(argument, "="), argument);
    hv_text_show(name, shown, sizeof shown);
    for (int c = 0; c < HV_COMMAND_COUNT && argument[1] == '-'; c++) {
        const struct hv_option *found = find_in(table_of(c), argument, &value);
        if (found != NULL && p->command_seen) {
            return hv_error_set(err, "%s is an option of %s, not of %s", found->name, hv_command_rows[c].name,
                                hv_command_rows[p->ret->command].name);
        }
        if (found != NULL) {
            return hv_error_set(err, "%s is an option of %s: write it behind that word", found->name,
                                hv_command_rows[c].name);
        }
    }
    struct hv_nearest nearest = {.name = name};
    try_names(&nearest, &hv_options_of_all);
    if (p->command_seen) {
        try_names(&nearest, table_of(p->ret->command));
    }
    if (nearest.best != NULL) {
        return hv_error_set(err, "unknown option %s; did you mean %s?", shown, nearest.best);
    }
    return hv_error_set(err, "unknown option %s; harvestd%s%s --help lists all", shown, p->command_seen ? " " : "",
                        p->command_seen ? hv_command_rows[p->ret->command].name : "");
}

/* The word behind a command that has several things to do. */
static int take_action(struct parsing *p, const char *argument, struct hv_error *err) {
    const struct hv_command_row *row = &hv_command_rows[p->ret->command];
    struct hv_nearest nearest = {.name = argument};
    char shown[100];
    for (int a = 0; row->actions[a] != NULL; a++) {
        if (strcmp(row->actions[a], argument) == 0) {
            p->ret->action = a;
            return 0;
        }
        hv_nearest_try(&nearest, row->actions[a]);
    }
    hv_text_show(argument, shown, sizeof shown);
    return nearest.best != NULL ? hv_error_set(err, "%s cannot %s; did you mean %s?", row->name, shown, nearest.best)
                                : hv_error_set(err, "%s cannot %s; harvestd %s --help tells what it can", row->name, shown, row->name);
}

static int take_command(struct parsing *p, const char *argument, struct hv_error *err) {
    char shown[100], list[200];
    struct hv_text names;
    struct hv_nearest nearest = {.name = argument};
    hv_text_init(&names, list, sizeof list);
    hv_text_show(argument, shown, sizeof shown);
    if (p->command_seen && hv_command_rows[p->ret->command].actions != NULL && p->ret->action < 0) {
        return take_action(p, argument, err);
    }
    if (p->command_seen) {
        return hv_error_set(err, "unexpected argument %s: there is one command at most", shown);
    }
    for (int c = 0; c < HV_COMMAND_COUNT; c++) {
        const char *name = hv_command_rows[c].name;
        if (strcmp(name, argument) == 0) {
            p->command_seen = true;
            p->ret->command = (enum hv_command)c;
            return 0;
        }
        hv_nearest_try(&nearest, name);
        hv_text_printf(&names, "%s%s", c == 0 ? "" : c + 1 == HV_COMMAND_COUNT ? " and " : ", ", name);
    }
    if (nearest.best != NULL) {
        return hv_error_set(err, "unknown command %s; did you mean %s?", shown, nearest.best);
    }
    return hv_error_set(err, "unknown command %s; there are %s", shown, list);
}

static int take_number(const struct hv_option *option, const char *text, void *field, struct hv_error *err) {
    uint64_t number;
    struct hv_error why;
    enum hv_number kind = option->type == HV_OPTION_DURATION ? HV_NUMBER_DURATION
                          : option->type == HV_OPTION_SIZE   ? HV_NUMBER_SIZE
                                                             : HV_NUMBER_COUNT;
    if (hv_parse_number(kind, text, option->min, option->max, &number, &why) != 0) {
        return hv_error_set(err, "%s: %s", option->name, why.text);
    }
    if (kind == HV_NUMBER_DURATION) {
        *(hv_time *)field = (hv_time)number;
    } else {
        *(uint64_t *)field = number;
    }
    return 0;
}

static int take_value(const struct hv_option *option, const char *value, struct hv_options *ret,
                      struct hv_error *err) {
    void *field = (char *)ret + option->offset;
    struct hv_option_texts *texts = field;
    switch (option->type) {
    case HV_OPTION_FLAG:
        *(bool *)field = true;
        return 0;
    case HV_OPTION_TEXT:
        if (value[0] == '\0') {
            return hv_error_set(err, "%s is empty; it needs a value: %s", option->name, option->value);
        }
        *(const char **)field = value;
        return 0;
    case HV_OPTION_TEXTS:
        if (texts->count == HV_OPTION_TEXTS_MAX) {
            return hv_error_set(err, "%s is given more than %d times", option->name, HV_OPTION_TEXTS_MAX);
        }
        texts->list[texts->count++] = value;
        return 0;
    case HV_OPTION_COUNT:
    case HV_OPTION_SIZE:
    case HV_OPTION_DURATION:
        break;
    }
    return take_number(option, value, field, err);
}

/* The option at argv[*at]; moves *at when its value is the next argument. */
static int take_option(struct parsing *p, int argc, char *const *argv, int *at, struct hv_error *err) {
    const char *argument = argv[*at], *value = NULL;
    int owner = HV_COMMAND_COUNT;
    const struct hv_option *option = find_in(&hv_options_of_all, argument, &value);
    if (option == NULL && p->command_seen) {
        owner = (int)p->ret->command;
        option = find_in(table_of(owner), argument, &value);
    }
    if (option == NULL) {
        return unknown_option(p, argument, err);
    }
    if (option->type == HV_OPTION_FLAG) {
        if (value != NULL) {
            return hv_error_set(err, "%s takes no value", option->name);
        }
    } else {
        bool *given = &p->given[owner][option - table_of(owner)->rows];
        if (*given && option->type != HV_OPTION_TEXTS) {
            return hv_error_set(err, "%s is given twice; leave one of the two", option->name);
        }
        *given = true;
        if (value == NULL && *at + 1 == argc) {
            return hv_error_set(err, "%s needs a value: %s", option->name, option->value);
        }
        if (value == NULL) {
            value = argv[++*at];
        }
    }
    return take_value(option, value, p->ret, err);
}

static void fill_presets(struct hv_options *ret) {
    struct hv_error err;
    for (int c = 0; c <= HV_COMMAND_COUNT; c++) {
        assert(table_of(c)->count <= HV_OPTIONS_MAX);
        for (size_t i = 0; i < table_of(c)->count; i++) {
            const struct hv_option *option = &table_of(c)->rows[i];
            int bad = option->preset == NULL ? 0 : take_value(option, option->preset, ret, &err);
            assert(bad == 0);
            (void)bad;
        }
    }
}

int hv_options_parse(int argc, char *const *argv, struct hv_options *ret, struct hv_error *err) {
    struct parsing p = {.ret = ret};
    memset(ret, 0, sizeof *ret);
    ret->action = -1;
    fill_presets(ret);
    for (int i = 1; i < argc; i++) {
        const char *argument = argv[i];
        int bad = 0;
        if (p.options_end || argument[0] != '-' || argument[1] == '\0') {
            bad = take_command(&p, argument, err);
        } else if (strcmp(argument, "--") == 0) {
            p.options_end = true;
        } else {
            bad = take_option(&p, argc, argv, &i, err);
        }
        if (bad != 0) {
            return -1;
        }
    }
    ret->help_of = p.command_seen ? ret->command : HV_COMMAND_NONE;
    if (ret->help) {
        ret->command = HV_COMMAND_HELP;
    } else if (ret->help_config) {
        ret->command = HV_COMMAND_HELP_CONFIG;
    } else if (ret->version) {
        ret->command = HV_COMMAND_VERSION;
    } else if (hv_command_rows[ret->command].check != NULL) {
        return hv_command_rows[ret->command].check(ret, err);
    }
    return 0;
}
