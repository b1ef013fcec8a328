/* harvestd: command line in, exit code out. What the commands do is in cmd_*.c. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "app/commands.h"
#include "app/options.h"
#include "rt/config.h"

enum exit_code { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_WRONG = 2 };

/* A socket must not become standard error because we were started without one. */
static void open_standard_descriptors(void) {
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) == -1 && errno == EBADF && open("/dev/null", O_RDWR) != fd) {
            _exit(EXIT_FAILED);
        }
    }
}

/* What was printed is worth nothing if it did not arrive. */
static int finish_output(int code) {
    if (fflush(stdout) == 0 && !ferror(stdout)) {
        return code;
    }
    fprintf(stderr, "harvestd: standard output cannot be written: %s\n", strerror(errno));
    return EXIT_FAILED;
}

/* A dump of our memory would hold passwords. The limit alone does not stop the kernel from feeding one to a collector. */
static void forbid_core_dumps(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_CORE, &limit) == 0) {
        limit.rlim_cur = 0;
        setrlimit(RLIMIT_CORE, &limit);
    }
    prctl(PR_SET_DUMPABLE, 0);
}

static int with_settings(const struct hv_options *options) {
    struct hv_settings settings;
    int code = EXIT_FAILED;
    const struct hv_config_source source = {
        .path = options->config != NULL ? options->config : HV_DEFAULT_CONFIG,
        .optional = options->config == NULL && options->command == HV_COMMAND_SCHEMA,
        .sets = options->sets.list,
        .set_count = options->sets.count,
    };
    hv_settings_init(&settings);
    if (hv_config_load(&source, &settings, stderr) != 0) {
        hv_settings_free(&settings);
        return EXIT_WRONG;
    }
    if (!settings.core_dumps) {
        forbid_core_dumps();
    }
    if (options->command == HV_COMMAND_RUN) {
        code = hv_cmd_run(&settings);
    } else if (options->command == HV_COMMAND_CHECK) {
        code = hv_cmd_check(&settings);
    } else if (options->command == HV_COMMAND_SCHEMA) {
        code = hv_cmd_schema(&settings, options);
    } else if (options->command == HV_COMMAND_STASH) {
        code = hv_cmd_stash(&settings, options);
    } else if (options->command == HV_COMMAND_PUMP) {
        code = hv_cmd_pump(&settings, options);
    } else if (options->command == HV_COMMAND_PARK) {
        code = hv_cmd_park(&settings, options);
    } else if (options->command == HV_COMMAND_BLOCKED) {
        code = hv_cmd_blocked(&settings, options);
    }
    hv_settings_free(&settings);
    return code;
}

int main(int argc, char **argv) {
    struct hv_options options;
    struct hv_error err;
    open_standard_descriptors();
    if (hv_options_parse(argc, argv, &options, &err) != 0) {
        fprintf(stderr, "harvestd: %s\n", err.text);
        return EXIT_WRONG;
    }
    switch (options.command) {
    case HV_COMMAND_HELP:
        hv_options_help(options.help_of, stdout);
        return finish_output(EXIT_DONE);
    case HV_COMMAND_HELP_CONFIG:
        hv_options_help_config(stdout);
        return finish_output(EXIT_DONE);
    case HV_COMMAND_VERSION:
        return finish_output(hv_cmd_version());
    default:
        return finish_output(with_settings(&options));
    }
}
