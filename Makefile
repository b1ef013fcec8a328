# harvestd: publishes the rows of a Postgres outbox table to Kafka. `make help` lists what can be made.
#
# Layers: src/base < core < io < rt < app; libharvest holds all but app. Everything that is made goes to $(BUILD).
# Variables: BUILD (build), SANITIZE (e.g. address,undefined; builds to build/asan), PREFIX, DESTDIR, CC, CFLAGS, LDFLAGS,
# V (1: whole commands), BROKER (of demo: mock or kafka), TESTS (files for pytest),
# PYTEST_ARGS (e.g. "-k purge -x").

VERSION   := 0.1.0
SOVERSION := 0
PREFIX    ?= /usr/local
SANITIZE  ?=
BUILD     ?= $(if $(SANITIZE),build/asan,build)
BROKER    ?= mock

# Debian's Python with Debian's packages, whatever else is first on the PATH.
PYTHON      := /usr/bin/python3
PYTEST_ARGS ?=
# Most of the tests' time is waiting (sessions that expire, brokers that start): two at a time.
WORKERS     ?= 2
TESTS       ?= tests/contract tests/system
# HARVESTD: the daemon that the tests start, with a wrapper in front if one is wanted. HARVESTD_BUILD: the other programs.
HARVESTD     = $(abspath $(BUILD)/harvestd)
PYTEST       = PYTHONDONTWRITEBYTECODE=1 $(if $(SANITIZE),LSAN_OPTIONS=suppressions=$(abspath tests/lsan.supp):print_suppressions=0) \
               HARVESTD="$(HARVESTD)" HARVESTD_BUILD=$(abspath $(BUILD)) \
               $(PYTHON) -m pytest -c tests/system/pytest.ini -p no:cacheprovider -n $(WORKERS) \
               --basetemp=$(abspath $(BUILD))/tmp $(PYTEST_ARGS)

# ---- Compiler ---------------------------------------------------------------------------------------------------------

PKGS := libuv rdkafka libpq uuid inih
# Of the daemon alone.
APP_PKGS := jansson
# Recursive on purpose: asked only when something is compiled, so `make deps` and `make help` work on a bare machine.
pkg_cflags = $(patsubst -I%,-isystem %,$(shell pkg-config --cflags-only-I $(1)))
pkg_libs   = $(shell pkg-config --libs $(1))

WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wmissing-declarations \
            -Wold-style-definition -Wpointer-arith -Wformat=2 -Wvla -Wundef -Wwrite-strings -Wredundant-decls \
            -Wlogical-op -Wduplicated-cond -Wcast-align
HARDEN   := -fstack-protector-strong -fstack-clash-protection $(if $(filter x86_64,$(shell uname -m)),-fcf-protection)
OPTIMISE := -O2
ifneq ($(SANITIZE),)
HARDEN   := -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
OPTIMISE := -O1
else
HARDEN   += -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
endif

CFLAGS  ?=
LDFLAGS ?=
HV_CFLAGS = -std=c11 -D_GNU_SOURCE $(OPTIMISE) -g $(WARNINGS) $(HARDEN) -fvisibility=hidden -fPIC -Iinclude -Isrc \
            -DHV_VERSION='"$(VERSION)"' $(CFLAGS)
HV_LDFLAGS = $(if $(SANITIZE),-fsanitize=$(SANITIZE)) -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed $(LDFLAGS)

# One line a step; V=1 shows the whole commands.
V ?=
say = $(if $(V),,@printf '  %-4s %s\n' $(1) $@;)

# ---- Sources ----------------------------------------------------------------------------------------------------------

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))

PURE_OBJ := $(call obj,$(wildcard src/base/*.c) $(wildcard src/core/*.c))
LIB_OBJ  := $(PURE_OBJ) $(call obj,$(wildcard src/io/*.c) $(wildcard src/rt/*.c))
APP_OBJ  := $(call obj,$(filter-out src/app/main.c,$(wildcard src/app/*.c)))
MAIN_OBJ := $(call obj,$(wildcard src/app/main.c))

LIB_A  := $(BUILD)/libharvest.a
LIB_SO := $(BUILD)/libharvest.so
APP_A  := $(BUILD)/obj/app.a
DAEMON := $(if $(MAIN_OBJ),$(BUILD)/harvestd)

# Test programs: test_*.c is a program each, other files beside them are linked into all of that directory.
UNIT_SRC     := $(wildcard tests/unit/test_*.c)
CONTRACT_SRC := $(wildcard tests/contract/test_*.c)
UNIT_HELP     := $(call obj,$(filter-out $(UNIT_SRC),$(wildcard tests/unit/*.c)))
CONTRACT_HELP := $(call obj,$(filter-out $(CONTRACT_SRC),$(wildcard tests/contract/*.c)))
UNIT     := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(UNIT_SRC))
CONTRACT := $(patsubst tests/contract/%.c,$(BUILD)/tests/%,$(CONTRACT_SRC))
SIM_OBJ  := $(call obj,$(wildcard tests/sim/*.c))
SIM      := $(if $(SIM_OBJ),$(BUILD)/tests/sim)
# The daemon with faults between its Kafka adapters and librdkafka.
FAULTY   := $(BUILD)/tests/harvestd_faulty
# The daemon with a cursor that does not remember what it has not seen yet: it has to be found out.
GAPLESS  := $(BUILD)/tests/harvestd_without_gaps
EMBED_OBJ := $(call obj,$(wildcard tests/embed/*.c))
EMBED    := $(if $(EMBED_OBJ),$(BUILD)/tests/embed_host)
TOOLS    := $(patsubst tests/tools/%.c,$(BUILD)/tools/%,$(wildcard tests/tools/*.c))
BENCHES  := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/*.c))
BENCH_HELP := $(call obj,$(wildcard tests/bench/common/*.c))

ifneq ($(words $(notdir $(UNIT) $(CONTRACT))),$(words $(sort $(notdir $(UNIT) $(CONTRACT)))))
$(error a name is used in tests/unit and in tests/contract: both make $(BUILD)/tests/<name>)
endif

# ---- What is made -----------------------------------------------------------------------------------------------------

.DEFAULT_GOAL := all
.PHONY: all tests tools help deps install clean demo check check-static check-install unit sim system bench bench-quick bench-profile sanitize sanitize-threads valgrind check-long
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

all: $(DAEMON) $(LIB_A) $(LIB_SO)  ## the daemon and the library (static and shared)

tests: all $(UNIT) $(CONTRACT) $(SIM) $(FAULTY) $(GAPLESS) $(EMBED) tools  ## all test programs, without running them

tools: $(TOOLS)  ## helper programs of tests and demo (embedded Kafka broker)

# Rebuilds everything when the way of compiling changes.
$(BUILD)/obj/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(subst ','"'"',$(CC) $(HV_CFLAGS) / $(HV_LDFLAGS))' | cmp -s - $@ || \
	 echo '$(subst ','"'"',$(CC) $(HV_CFLAGS) / $(HV_LDFLAGS))' > $@

# ... and archives when a source is gone, which no time stamp tells.
$(BUILD)/obj/list: FORCE
	@mkdir -p $(@D)
	@echo '$(LIB_OBJ) $(APP_OBJ)' | cmp -s - $@ || echo '$(LIB_OBJ) $(APP_OBJ)' > $@
.PHONY: FORCE

$(BUILD)/obj/%.o: %.c $(BUILD)/obj/flags
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(HV_CFLAGS) $(LAYER_CFLAGS) -MMD -MP -c -o $@ $<

# The pure layers do not even see the libraries' include directories.
$(BUILD)/obj/src/io/%.o $(BUILD)/obj/src/rt/%.o: LAYER_CFLAGS = $(call pkg_cflags,$(PKGS))
$(BUILD)/obj/src/app/%.o $(BUILD)/obj/tests/tools/%.o $(BUILD)/obj/tests/bench/%.o: \
    LAYER_CFLAGS = $(call pkg_cflags,$(PKGS) $(APP_PKGS))
$(BUILD)/obj/tests/unit/%.o $(BUILD)/obj/tests/contract/%.o: \
    LAYER_CFLAGS = -Itests $(call pkg_cflags,$(PKGS) $(APP_PKGS) cmocka)
$(BUILD)/obj/tests/sim/%.o: LAYER_CFLAGS = -Itests
$(BUILD)/obj/tests/faults/%.o: LAYER_CFLAGS = $(call pkg_cflags,rdkafka)
$(BUILD)/obj/tests/embed/%.o: LAYER_CFLAGS = $(call pkg_cflags,libuv glib-2.0)

$(LIB_A): $(LIB_OBJ) $(BUILD)/obj/list
	$(call say,AR)rm -f $@ && $(AR) rcs $@ $(LIB_OBJ)

$(APP_A): $(APP_OBJ) $(BUILD)/obj/list
	$(call say,AR)rm -f $@ && $(AR) rcs $@ $(APP_OBJ)

$(LIB_SO).$(VERSION): $(LIB_OBJ) $(BUILD)/obj/list libharvest.map
	$(call say,LINK)$(CC) -shared -Wl,-soname,libharvest.so.$(SOVERSION) -Wl,--no-undefined -Wl,--version-script=libharvest.map $(HV_LDFLAGS) -o $@ $(LIB_OBJ) $(call pkg_libs,$(PKGS))

$(LIB_SO): $(LIB_SO).$(VERSION)
	@ln -sf $(notdir $<) $(LIB_SO).$(SOVERSION)
	@ln -sf $(notdir $<) $@

$(BUILD)/harvestd: $(MAIN_OBJ) $(APP_A) $(LIB_A)
	$(call say,LINK)$(CC) -pie $(HV_LDFLAGS) -o $@ $^ $(call pkg_libs,$(PKGS) $(APP_PKGS))

$(UNIT): $(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(UNIT_HELP) $(APP_A) $(LIB_A)
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) -pie $(HV_LDFLAGS) -o $@ $^ $(call pkg_libs,cmocka $(PKGS) $(APP_PKGS))

$(CONTRACT): $(BUILD)/tests/%: $(BUILD)/obj/tests/contract/%.o $(CONTRACT_HELP) $(APP_A) $(LIB_A)
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) -pie $(HV_LDFLAGS) -o $@ $^ $(call pkg_libs,cmocka $(PKGS) $(APP_PKGS))

# No library here: linking is the proof that base and core need none.
$(BUILD)/tests/sim: $(SIM_OBJ) $(PURE_OBJ)
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) -pie $(HV_LDFLAGS) -o $@ $^

WRAPPED := rd_kafka_producev rd_kafka_purge rd_kafka_event_message_next
$(FAULTY): $(MAIN_OBJ) $(call obj,tests/faults/faults.c) $(APP_A) $(LIB_A)
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) -pie $(HV_LDFLAGS) $(WRAPPED:%=-Wl,--wrap=%) -o $@ $^ $(call pkg_libs,$(PKGS) $(APP_PKGS))

$(GAPLESS): $(MAIN_OBJ) $(call obj,tests/faults/without_gaps.c) $(APP_A) $(LIB_A)
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) -pie $(HV_LDFLAGS) -Wl,--wrap=hv_gaps_add -o $@ $^ $(call pkg_libs,$(PKGS) $(APP_PKGS))

# A host of the shared library: what it calls is exported, and it needs no library that only libharvest uses.
$(EMBED): $(EMBED_OBJ) $(LIB_SO)
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) -pie $(HV_LDFLAGS) -Wl,-rpath,'$$ORIGIN/..' $(if $(filter thread,$(SANITIZE)),-rdynamic) \
	    -o $@ $(EMBED_OBJ) -L$(BUILD) -lharvest $(call pkg_libs,libuv glib-2.0)

$(TOOLS): $(BUILD)/tools/%: $(BUILD)/obj/tests/tools/%.o $(LIB_A)
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) -pie $(HV_LDFLAGS) -o $@ $^ $(call pkg_libs,$(PKGS))

$(BENCHES): $(BUILD)/bench/%: $(BUILD)/obj/tests/bench/%.o $(BENCH_HELP) $(LIB_A)
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) -pie $(HV_LDFLAGS) -o $@ $^ $(call pkg_libs,$(PKGS))

# Objects are kept, not deleted as intermediate files.
.SECONDARY:

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

# ---- Installing -------------------------------------------------------------------------------------------------------

install: all  ## install to $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/share/harvestd
	install -m 755 $(BUILD)/harvestd $(DESTDIR)$(PREFIX)/bin/harvestd
	install -m 644 $(LIB_A) $(DESTDIR)$(PREFIX)/lib/libharvest.a
	install -m 755 $(LIB_SO).$(VERSION) $(DESTDIR)$(PREFIX)/lib/libharvest.so.$(VERSION)
	ln -sf libharvest.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/libharvest.so.$(SOVERSION)
	ln -sf libharvest.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/libharvest.so
	$(foreach f,$(wildcard include/*.h),install -D -m 644 $(f) $(DESTDIR)$(PREFIX)/$(f) &&) true
	$(foreach f,$(wildcard etc/*.ini etc/*.sql),install -m 644 $(f) $(DESTDIR)$(PREFIX)/share/harvestd/ &&) true
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@LIBS@|$(call pkg_libs,$(PKGS))|' \
	    -e 's|@LIBPQ_LIBS@|$(call pkg_libs,libpq)|' -e 's|@LIBPQ_CFLAGS@|$(shell pkg-config --cflags libpq)|' libharvest.pc.in \
	    > $(DESTDIR)$(PREFIX)/lib/pkgconfig/libharvest.pc

clean:  ## remove everything that was made
	rm -rf build

deps:  ## install what building needs (Debian packages)
	scripts/install-deps build

# ---- Trying and testing -----------------------------------------------------------------------------------------------

demo:  ## see it work: private Postgres, embedded Kafka broker (BROKER=kafka: a real one), nothing left behind
	@scripts/install-deps $(if $(filter kafka,$(BROKER)),test,demo)
	@$(if $(filter kafka,$(BROKER)),scripts/get-kafka)
	@$(MAKE) --no-print-directory all tools
	@HARVESTD_BUILD=$(abspath $(BUILD)) scripts/demo --broker $(BROKER)

check:  ## everything that must pass: builds, static checks, unit, simulator, contract and system tests
	scripts/install-deps test
	scripts/get-kafka
	$(MAKE) tests $(BENCHES)
	$(MAKE) check-static
	$(MAKE) check-install
	$(MAKE) unit
	$(MAKE) sim
	$(MAKE) system

check-static: $(LIB_A) $(LIB_SO) $(DAEMON)  ## the rules that need no run: layers, blocking calls, documented options
	@set -e; for check in scripts/check-*; do echo "== $$check"; HARVESTD_BUILD=$(BUILD) $$check; done

check-install: all
	rm -rf $(BUILD)/stage
	$(MAKE) --no-print-directory install DESTDIR=$(abspath $(BUILD)/stage) PREFIX=/usr >/dev/null
	$(BUILD)/stage/usr/bin/harvestd --version
	PKG_CONFIG_PATH=$(BUILD)/stage/usr/lib/pkgconfig pkg-config --exists --print-errors libharvest

unit: $(UNIT)  ## unit tests
	@$(if $(UNIT),,echo "no unit tests"; exit 1;) set -e; for t in $(UNIT); do echo "== $$t"; timeout 120 $$t; done

sim: $(SIM)  ## the simulator: random schedules with faults over the pure core
	$(if $(SIM),timeout $(if $(SANITIZE),1200,300) $(SIM),@echo "no simulator"; exit 1)

system: all tests  ## contract and system tests, with real Postgres and real Kafka
	$(PYTEST) $(TESTS)

# BENCH_ARGS: e.g. "--only drain --strategies cursor"; bench.py --help lists all.
BENCH_ARGS ?=
BENCH_ENV   = HARVESTD_BUILD=$(abspath $(BUILD))
bench: all $(BENCHES)  ## speed, latency and cost beside limits measured in the same run; half an hour; to build/bench
	scripts/get-kafka
	$(BENCH_ENV) $(PYTHON) tests/bench/bench.py $(BENCH_ARGS)

bench-profile: all $(BENCHES)  ## the daemon's busiest functions during a drain (needs linux-perf)
	scripts/get-kafka
	$(BENCH_ENV) $(PYTHON) tests/bench/profile.py $(BENCH_ARGS)

bench-quick: all $(BENCHES)  ## a first impression of that in two minutes
	scripts/get-kafka
	$(BENCH_ENV) $(PYTHON) tests/bench/bench.py --quick $(BENCH_ARGS)

sanitize:  ## unit tests, simulator and system tests under address, undefined-behaviour and leak sanitizers
	$(MAKE) SANITIZE=address,undefined BUILD=build/asan tests
	$(MAKE) SANITIZE=address,undefined BUILD=build/asan unit
	$(MAKE) SANITIZE=address,undefined BUILD=build/asan sim
	$(MAKE) SANITIZE=address,undefined BUILD=build/asan system

sanitize-threads:  ## harvests in threads of a host's, under the thread sanitizer
	$(MAKE) SANITIZE=thread BUILD=build/tsan build/tsan/tests/embed_host
	TSAN_OPTIONS=suppressions=$(abspath tests/embed/tsan.supp) EMBED_HOST=$(abspath build/tsan/tests/embed_host) $(PYTEST) -k "thread or three" tests/system/test_embedding.py

# Those that stop the daemon in order, so that leaks are looked for, and some that send.
VALGRIND_TESTS = tests/system/test_delivery.py tests/system/test_readme.py \
    tests/system/test_stop.py::test_stops_under_load_without_duplicates \
    tests/system/test_stop.py::test_stops_before_it_ever_led
valgrind: tests  ## a short system run under valgrind
	valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite $(BUILD)/tests/test_embedding
	$(MAKE) HARVESTD="valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite \
	    $(abspath $(BUILD)/harvestd)" TESTS="$(VALGRIND_TESTS)" system

check-long: tests  ## the tests that take long
	$(PYTEST) -m long $(TESTS)

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
