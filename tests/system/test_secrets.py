"""Ways that keep secrets out of the configuration, and what never shows one: log lines of all levels, librdkafka's own included,
`check`, help, error messages, the process list, a core dump."""
import glob
import os
import resource
import signal
import subprocess

import pytest

from bed.certificates import Authority, write
from bed.daemon import command, environment_with, run_once, write_ini
from bed.util import SANITIZED, free_port

DEADLINE = 30


def schema(tmp_path, text, *arguments, environment=None):
    path = tmp_path / "a.ini"
    path.write_text(text)
    return run_once("schema", "-c", str(path), *arguments, env=environment_with(environment or {}))


def refused(done, path, *lines):
    assert done.returncode == 2 and done.stdout == "", done.stdout
    assert [line.replace(str(path), "") for line in done.stderr.splitlines()] == list(lines)


# -- the environment ------------------------------------------------------------------------------------------------------


def test_variables_in_values(tmp_path):
    text = "[harvest]\noutbox_table = ${S}.\"${T:-My Box} $${x}\"\n[limits]\nsend_buffer = ${N}\n"
    for box in "Your $ Box", None:
        done = schema(tmp_path, text, environment={"S": "s", "N": "7", "T": box})
        assert done.returncode == 0 and 's."%s ${x}"' % (box or "My Box") in done.stdout, done.stderr


def test_a_variable_cannot_add_lines(tmp_path):
    done = schema(tmp_path, "[harvest]\nname = ${X}\n", environment={"X": "n\n[log]\nlevel = loud"})
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and ":2: name: " in done.stderr


def test_a_variable_that_is_not_set(tmp_path):
    done = schema(tmp_path, "[harvest]\n\ndata_source = host=a password=${HV_PW}\n[kafka]\nsasl.password = x${HV_PW\n",
                  environment={"HV_PW": None})
    refused(done, tmp_path / "a.ini",
            ":3: data_source: the environment variable 'HV_PW' is not set; set it where the program is started, or write "
            "${HV_PW:-text}",
            ":5: sasl.password: after ${ has to follow NAME} or NAME:-text}, with the name of an environment variable; for a "
            "value that holds ${ itself write $${")


# -- files ----------------------------------------------------------------------------------------------------------------


def test_files_that_cannot_be_used(tmp_path):
    write(tmp_path, "empty", "")
    write(tmp_path, "two", "Topsecret\nTopsecret\n")
    text = ("[harvest]\npassword_file = /nonexistent/pw\ndata_source_file = %s/two\n[kafka]\nsasl.password_file = %s/empty\n"
            "ssl.key.password_file = %s\nssl.keystore.password_file = %s/two\n" % ((tmp_path,) * 4))
    done = schema(tmp_path, text)
    refused(done, tmp_path,
            "/a.ini:2: password_file: the file '/nonexistent/pw' cannot be opened: No such file or directory",
            "/a.ini:3: data_source: a '=' is missing: write option=value pairs; a value with blanks or quotes goes in single "
            "quotes, as in password='a b' (in the file '/two')",
            "/a.ini:5: sasl.password_file: the file '/empty' is empty",
            "/a.ini:6: ssl.key.password_file: '' is no regular file",
            "/a.ini:7: ssl.keystore.password_file: the file '/two' holds more than one line; it is to hold the value and "
            "nothing else")


def test_a_secret_is_given_once(tmp_path):
    write(tmp_path, "pw", "x")
    done = schema(tmp_path, "[kafka]\nsasl.password = a\nsasl.password_file = %s/pw\n" % tmp_path)
    refused(done, tmp_path / "a.ini", ":3: sasl.password_file: it is set in line 2 already; leave one of the two")


def test_a_name_that_has_no_file(tmp_path):
    done = schema(tmp_path, "[harvest]\noutbox_table_file = x\n")
    assert done.returncode == 2 and "unknown setting 'outbox_table_file'" in done.stderr


@pytest.mark.parametrize("mode, noted", [(0o644, True), (0o640, False)])
def test_check_notes_files_that_everybody_may_read(bed, tmp_path, mode, noted):
    database = bed.database()
    pw = write(tmp_path, "pw", "Topsecret\n", mode)
    ini = str(tmp_path / "a.ini")
    sections = bed.settings(database)
    sections["kafka"]["sasl.password_file"] = pw
    write_ini(ini, sections)
    os.chmod(ini, mode)
    done = run_once("check", "-c", ini)
    notes = [line for line in done.stdout.splitlines() if line.startswith("note    secrets: ")]
    assert done.returncode == 0 and len(notes) == (2 if noted else 0), done.stdout
    assert not noted or (ini in notes[0] and pw in notes[1])


# -- the command line -----------------------------------------------------------------------------------------------------


def test_secrets_on_the_command_line_are_refused(tmp_path):
    for name in ("harvest.data_source=host=a password=Topsecret", "harvest.data_source=postgres://u:Topsecret@h/d",
                 "harvest.password=Topsecret", "kafka.sasl.password=Topsecret", "kafka.producer.ssl.key.pem=Topsecret"):
        done = schema(tmp_path, "[harvest]\n", "--set", name)
        assert done.returncode == 2 and "everybody on this machine can read a command line" in done.stderr
        assert "Topsecret" not in done.stderr
    done = schema(tmp_path, "[harvest]\n", "--set", "harvest.data_source=host=a", "--set", "harvest.password=${PW}",
                  "--set", "kafka.sasl.password_file=" + write(tmp_path, "pw", "Topsecret"), environment={"PW": "Topsecret"})
    assert done.returncode == 0, done.stderr


# -- core dumps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting, dumps", [("off", False), ("on", True)])
def test_core_dumps(tmp_path, setting, dumps):
    """Whatever the limit was that it was started with."""
    if len(command()) > 1 or SANITIZED:
        pytest.skip("a wrapper, or a sanitizer, has limits of its own")
    path = tmp_path / "a.ini"
    path.write_text("[harvest]\ndata_source = host=127.0.0.1 port=%d\ncore_dumps = %s\n[kafka]\n"
                    "bootstrap.servers = 127.0.0.1:%d\n" % (free_port(), setting, free_port()))
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    process = subprocess.Popen(command() + ["run", "-c", str(path)], stderr=subprocess.PIPE, text=True, cwd=tmp_path,
                               preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (min_limit(hard), hard)))
    try:
        assert "started" in process.stderr.readline()
        with open("/proc/%d/limits" % process.pid) as f:
            limit = [line.split()[4] for line in f if line.startswith("Max core file size")][0]
        assert (limit != "0") == (dumps and hard != 0)
        process.send_signal(signal.SIGSEGV)
        status = os.waitpid(process.pid, 0)[1]
        process.returncode = -os.WTERMSIG(status)
        assert dumps or not os.WCOREDUMP(status)
        assert dumps or not glob.glob(str(tmp_path / "core*"))
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()
        process.stderr.close()


def min_limit(hard):
    """Enough for a dump, if one may be made at all."""
    return hard if hard != resource.RLIM_INFINITY else 1 << 30


# -- nothing shows one ----------------------------------------------------------------------------------------------------

MARK = "m4rk"
SECRETS = ["sasl.password", "ssl.key.password", "ssl.keystore.password", "sasl.oauthbearer.config"]


def everything(bed, tmp_path, database, environment):
    """Settings with a secret in each place there is; each holds the mark. Some stand in the file, some are read."""
    sections = bed.settings(database, log={"level": "debug"})
    role = "r" + database.name
    database.execute("CREATE ROLE %s LOGIN PASSWORD '%s-1 ''x'; GRANT ALL ON outbox TO %s" % (role, MARK, role))
    environment["DB_PASSWORD"] = MARK + "-1 'x"
    key = Authority().client("relay").key_pem().decode()
    sections["harvest"].update(data_source="postgresql://%s:%s-2@127.0.0.1:%d/%s?sslmode=disable" % (
        role, MARK, database.server.port, database.name), password="${DB_PASSWORD}")
    sections["kafka"].update({
        "debug": "all", "sasl.username": "relay", "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.password_file": write(tmp_path, "pw", MARK + "-3"), "ssl.key.password": MARK + "-4",
        "ssl.key.pem_file": write(tmp_path, "key", key), "sasl.oauthbearer.config": "principal=%s-5" % MARK})
    sections["kafka.producer"].update({"sasl.password": MARK + "-6"})
    sections["kafka.consumer"].update({"ssl.keystore.password": MARK + "-7"})
    return sections, [MARK] + key.splitlines()[1:-1]


def assert_unseen(marks, text, where):
    for mark in marks:
        found = text.find(mark)
        assert found < 0, "%s shows %s" % (where, text[max(found - 300, 0):found + 100])


def test_nothing_shows_a_secret(bed, tmp_path):
    """Through connecting, sending, refusals, and with every debug line that librdkafka has."""
    database, topic, environment = bed.database(), bed.topic(), {}
    sections, marks = everything(bed, tmp_path, database, environment)
    daemon = bed.harvestd(database, start=False, environment=environment)
    daemon.sections = sections
    daemon.start()
    collector = bed.collector(topic)
    bed.write(database, topic, "k", "v")
    collector.wait_value("v")
    with open("/proc/%d/cmdline" % daemon.pid) as f:
        assert_unseen(marks, f.read(), "the command line")
    with open("/proc/%d/comm" % daemon.pid) as f:
        assert_unseen(marks, f.read(), "the name of the process")
    assert_unseen(marks, str(database.sessions()), "pg_stat_activity")
    daemon.wait_log("librdkafka", None, facility="CONF")   # it does print the configuration
    database.execute("ALTER ROLE r%s PASSWORD '%s-8'" % (database.name, MARK))
    with database.connect() as c:
        c.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
                  [database.name])
    daemon.wait_log("database", "cannot connect", sqlstate="28P01")
    checked = run_once("check", "-c", daemon.ini, env=environment_with(environment))
    assert checked.returncode == 1
    daemon.stop()
    for line in daemon.lines:
        assert_unseen(marks, line["raw"], "a log line")
    assert_unseen(marks, checked.stdout + checked.stderr, "check")


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL", "SSL"])
def test_no_refusal_shows_a_secret(bed, tmp_path, protocol):
    """A key that its password does not open, a login that the broker does not want."""
    database, environment = bed.database(), {}
    sections, marks = everything(bed, tmp_path, database, environment)
    sections["kafka"]["security.protocol"] = protocol
    daemon = bed.harvestd(database, start=False, environment=environment)
    daemon.sections = sections
    daemon.start()
    if protocol == "SASL_PLAINTEXT":
        daemon.wait_log("kafka", "trouble")
        daemon.kill()
    else:
        daemon.wait_log("main", "cannot start")
        assert daemon.wait_exit() == 1
    checked = run_once("check", "-c", daemon.ini, env=environment_with(environment))
    assert checked.returncode == 1
    daemon.reader.join(DEADLINE)
    for line in daemon.lines:
        assert_unseen(marks, line["raw"], "a log line")
    assert_unseen(marks, checked.stdout + checked.stderr, "check")


def test_no_wrong_configuration_shows_a_secret(tmp_path):
    """Each secret once where it is not understood."""
    lines = ["[harvest]", "data_source = host=a password=%s b" % MARK, "password = x ;%s" % MARK, "[kafka]"]
    lines += ["%s = ${%s-}" % (name, MARK) for name in SECRETS]
    lines += ["[kafka.producer]"] + ["%sx = %s" % (name, MARK) for name in SECRETS]
    lines += ["[kafka.consumer]"] + ["%s %s" % (name, MARK) for name in SECRETS]
    done = schema(tmp_path, "\n".join(lines) + "\n", "--set", "kafka.sasl.passwort=" + MARK, "--set", MARK)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == len(lines) - 4 + 2, done.stderr
    assert_unseen([MARK], done.stderr, "an error")


def test_help_shows_no_secret():
    environment = environment_with({"PGPASSWORD": MARK, "PGUSER": MARK})
    for option in "--help", "--help-config", "--version":
        done = run_once(option, env=environment)
        assert done.returncode == 0
        assert_unseen([MARK], done.stdout + done.stderr, option)
