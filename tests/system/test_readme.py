"""What the README shows is executed: its table, its configuration, its way to write a record."""
import glob
import os
import re
import subprocess

import pytest

from bed import readme
from bed.daemon import run_once
from bed.postgres import binaries
from bed.util import ROOT


def test_table_is_what_schema_prints(tmp_path):
    ini = tmp_path / "harvestd.ini"
    ini.write_text(readme.block("ini"))
    printed = run_once("schema", "-c", str(ini))
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.strip() == readme.block("schema").strip()


def test_a_record_written_as_shown_arrives(bed, tmp_path):
    database = bed.database(table=readme.block("schema"))
    ini = tmp_path / "harvestd.ini"
    ini.write_text(readme.block("ini"))
    environment = dict(os.environ, DATA_SOURCE=database.data_source())
    over = ["--set", "harvest.data_source=${DATA_SOURCE}",
            "--set", "kafka.bootstrap.servers=" + bed.kafka.servers]
    checked = run_once("check", "-c", str(ini), *over, env=environment)
    assert checked.returncode == 0, checked.stdout + checked.stderr

    if "orders" not in bed.kafka.topics():
        bed.kafka.create_topic("orders")
    before = len(bed.collector("orders").read_to_end())
    psql = [os.path.join(binaries(), "psql"), "-X", "-v", "ON_ERROR_STOP=1", database.server.dsn(database.name)]
    subprocess.run(psql, check=True, text=True, input=readme.block("insert"), stdout=subprocess.DEVNULL)
    bed.harvestd(database)
    bed.wait_empty(database)
    (record,) = bed.collector("orders").read_to_end()[before:]
    assert record.key == b"customer-17"
    assert record.value == b'{"order": 4711, "state": "paid"}'
    assert record.headers == (("type", b"OrderPaid"), ("source", b"shop"))


@pytest.mark.parametrize("name", ["password", "certificate", "scram", "mutual"])
def test_security_examples_are_taken(tmp_path, name):
    """As they are shown, with the files that they name elsewhere. (test_security_*.py run the same against real servers.)"""
    text = readme.block("security: " + name)
    for path in set(re.findall(r"/etc/harvestd/[\w.-]+", text)):
        (tmp_path / os.path.basename(path)).write_text("secret\n")
    ini = tmp_path / "harvestd.ini"
    ini.write_text(text.replace("/etc/harvestd", str(tmp_path)))
    done = run_once("schema", "-c", str(ini), env=dict(os.environ, KAFKA_PASSWORD="secret"))
    assert done.returncode == 0, done.stderr


def test_make_targets_that_are_named_exist():
    listed = subprocess.run(["make", "--no-print-directory", "-C", ROOT, "help"], stdout=subprocess.PIPE, text=True,
                            check=True).stdout
    known = set(re.findall(r"^  (\S+)", listed, re.M))
    named = set(re.findall(r"`make ([a-z-]+)", readme.text())) | set(re.findall(r"^make ([a-z-]+)", readme.text(), re.M))
    assert {"demo", "check"} <= named
    assert named <= known


def test_log_messages_that_are_named_exist():
    table = re.search(r"\| component \| messages \|\n(.*?)\n\n", readme.text(), re.S).group(1)
    sources = ""
    for path in glob.glob(os.path.join(ROOT, "src", "*", "*.c")):
        with open(path, encoding="utf-8") as f:
            sources += f.read()
    for row in table.splitlines()[1:]:
        component, messages = row.strip("| ").split(" | ", 1)
        assert component.replace("`", '"') in sources
        for message in re.findall(r"`([^`]+)`", messages):
            assert '"%s"' % message in sources, "no %s says %r" % (component, message)
