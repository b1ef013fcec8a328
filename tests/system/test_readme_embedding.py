"""The README's embedding examples are compiled from its own text against an installed library, with nothing else of the project in sight, and
run. The public headers are compiled alone, as C99 and as C++."""
import os
import re
import shlex
import shutil
import subprocess

import pytest

from bed.daemon import write_ini
from bed.readme import block
from bed.util import BUILD, ROOT, SANITIZED, SANITIZER_FLAGS, spawn

STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """The root of an installation."""
    root = str(tmp_path_factory.mktemp("stage"))
    variables = ["SANITIZE=address,undefined"] if SANITIZED else []
    subprocess.run(["make", "-C", ROOT, "--no-print-directory", "install", "DESTDIR=" + root, "PREFIX=/usr/local",
                    "BUILD=" + os.path.relpath(BUILD, ROOT)] + variables, check=True, stdout=subprocess.DEVNULL)
    return os.path.join(root, "usr/local")


def pkg_config(stage, *arguments):
    done = subprocess.run(["pkg-config", "--define-variable=prefix=" + stage] + list(arguments) + ["libharvest"],
                          env=dict(os.environ, PKG_CONFIG_PATH=os.path.join(stage, "lib/pkgconfig")),
                          stdout=subprocess.PIPE, text=True, check=True)
    return shlex.split(done.stdout)


def compile_as_told(stage, directory, text, static):
    """As the README says it is done; the program's path."""
    (directory / "shop.c").write_text(text)
    flags = ["-l:libharvest.a", "-Wl,--as-needed", "--static"] if static else []
    told = [f for f in flags if f != "--static"] + pkg_config(stage, "--cflags", "--libs", *(f for f in flags if f == "--static"))
    subprocess.run(["cc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o", "shop", "shop.c"] + told
                   + SANITIZER_FLAGS, cwd=directory, check=True)
    needed = subprocess.run(["readelf", "-d", directory / "shop"], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert ("libharvest.so.0" in needed) == (not static)
    return str(directory / "shop")


def run(stage, program, *arguments, **options):
    return spawn([program] + list(arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                 env=dict(os.environ, LD_LIBRARY_PATH=os.path.join(stage, "lib")), **options)


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_embedding_example(bed, stage, tmp_path, static):
    text = block("embed-example", "c")
    assert text.count("\n") <= 60
    program = compile_as_told(stage, tmp_path, text, static)
    database, topic = bed.database(), bed.topic()
    process = run(stage, program, database.data_source(), bed.kafka.servers, stdin=subprocess.DEVNULL)
    bed.stack.callback(process.kill)
    for n in range(20):
        bed.write(database, topic, "k", "v%d" % n)
    bed.wait_empty(database)
    assert bed.collector(topic).wait_count(20)
    process.terminate()
    told, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert re.match(rb"leads as [0-9a-f-]{36}\n(\d+ records, \d+ a second\n)*leads no more\n$", told), told
    assert b'level=info component=leader msg="acquired"' in log


def test_embedding_example_tells_what_is_wrong(stage, tmp_path):
    program = compile_as_told(stage, tmp_path, block("embed-example", "c"), False)
    process = run(stage, program, "nonsense", "localhost:1", stdin=subprocess.DEVNULL)
    told, log = process.communicate(timeout=60)
    assert process.returncode == 1 and not told and b"data_source" in log, log


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_poll_example(bed, stage, tmp_path, static):
    text = block("embed-poll", "c")
    assert text.count("\n") <= 25
    program = compile_as_told(stage, tmp_path, text, static)
    database, topic = bed.database(), bed.topic()
    write_ini(str(tmp_path / "shop.ini"), bed.settings(database))
    process = run(stage, program, str(tmp_path / "shop.ini"), stdin=subprocess.PIPE)
    bed.stack.callback(process.kill)
    bed.write(database, topic, "k", "v")
    bed.wait_empty(database)
    assert bed.collector(topic).wait_count(1)
    assert process.communicate(input=b"\n", timeout=60) == (b"", b"")
    assert process.returncode == 0


@pytest.mark.parametrize("header", sorted(name for name in os.listdir(os.path.join(ROOT, "include"))))
def test_headers_stand_alone(stage, tmp_path, header):
    (tmp_path / "alone.c").write_text("#include <%s>\n#include <%s>\nint main(void) { return 0; }\n" % (header, header))
    flags = pkg_config(stage, "--cflags")
    subprocess.run(["cc"] + STRICT + ["-fsyntax-only", "alone.c"] + flags, cwd=tmp_path, check=True)
    if shutil.which("g++"):
        subprocess.run(["g++", "-x", "c++", "-std=c++11", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "alone.c"]
                       + flags, cwd=tmp_path, check=True)


def test_cplusplus(stage, tmp_path):
    """Names that are a type's and a function's in C have to be usable in C++, and the functions to be found."""
    if not shutil.which("g++"):
        pytest.skip("g++ is not installed")
    (tmp_path / "shop.cc").write_text("""#include <harvest.h>
        #include <harvest_stash.h>
        int main() {
            struct harvest_error err;
            struct harvest *h = harvest_new();
            int bad = harvest_set(h, "harvest", "nonsense", "x", &err);
            enum harvest_state state = harvest_state(h);
            const char *error = harvest_error(h);
            harvest_free(h);
            return bad == -1 && state == HARVEST_CREATED && error == nullptr ? 0 : 1;
        }
        """)
    subprocess.run(["g++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-o", "shop", "shop.cc"] + pkg_config(stage, "--cflags", "--libs")
                   + SANITIZER_FLAGS, cwd=tmp_path, check=True)
    assert run(stage, str(tmp_path / "shop")).wait(timeout=60) == 0


FORBIDDEN = re.compile(r"_?exit|quick_exit|atexit|signal|sigaction|(pthread_)?sigmask|sigprocmask|raise|kill|setlocale|(un)?setenv|putenv"
                       r"|clearenv|uv_default_loop|uv_signal_\w+|stdout|stdin|v?printf|puts|putchar|perror|psignal|v?syslog|fork|dup2?"
                       r"|daemon|chdir|umask|mallopt")


def test_library_calls_nothing_that_is_the_process_s(stage):
    """What no run of it would show for sure. The daemon alone asks for a signal; that it is left alone otherwise, test_embedding.py sees."""
    listed = subprocess.run(["nm", "-D", "--undefined-only", "-P", os.path.join(stage, "lib/libharvest.so")], stdout=subprocess.PIPE,
                            text=True, check=True).stdout
    names = [re.sub(r"^__(\w+)_chk$", r"\1", line.split()[0].split("@")[0]) for line in listed.splitlines()]
    assert "uv_run" in names and "rd_kafka_new" in names
    assert {name for name in names if FORBIDDEN.fullmatch(name)} <= {"sigaction", "pthread_sigmask"}
