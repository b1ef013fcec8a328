"""The README as the tests read it: what it shows is what they run."""
import os
import re

from .util import ROOT


def text():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        return f.read()


def block(name, language=r"\w+"):
    """The code block after the comment <!-- name -->."""
    found = re.findall(r"<!-- %s -->\n```%s\n(.*?)```\n" % (name, language), text(), re.S)
    assert len(found) == 1, "the README has %d blocks called %s" % (len(found), name)
    return found[0]
