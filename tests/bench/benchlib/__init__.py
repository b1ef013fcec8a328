"""The parts of the bench, a file of one purpose each. bench.py puts them together."""
import os
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
BUILD = os.environ.get("HARVESTD_BUILD", os.path.join(ROOT, "build"))
os.environ.setdefault("HARVESTD", os.path.join(BUILD, "harvestd"))
sys.path.insert(0, os.path.join(ROOT, "tests", "system"))
sys.dont_write_bytecode = True


class Wrong(RuntimeError):
    """Something that must not happen, whatever the speed: a record lost, doubled or out of order, a program that failed."""
