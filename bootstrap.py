#!/usr/bin/env python3
"""Set up `.venv` with everything pinned, once; the second time there is nothing to do.

Runs on any Python from 3.6 on and needs nothing but its standard library, so that what is missing is
told in one line instead of a traceback.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "harness-stamp")
LOCK = os.path.join(ROOT, ".venv.lock")
PYTHON_MIN, PYTHON_MAX = (3, 11), (3, 14)
"""For newer ones the pinned packages are not made."""
JAVA_MIN = 17
DISK_GB = 3
NAMES = ("python3.13", "python3.12", "python3.11", "python3.14")
NETWORK = "the packages could not be fetched: check the network (pip's proxy or mirror settings are honoured), then make again"
FULL = f"the disk is full: free {DISK_GB} GB in {ROOT}, then make again"


class Missing(Exception):
    """Something that this machine lacks; the message says what, and how to get it."""


def main():
    """Check, install, fetch; exit code 1 with one line where that cannot be."""
    try:
        if not is_current():
            with open(LOCK, "w") as lock:  # two at once would take the folder from under each other
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not is_current():
                    check_java()
                    python = find_python()
                    check_disk()
                    install(python)
        return 0
    except Missing as missing:
        print(f"setup: {missing}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: interrupted; make again goes on", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"setup: {FULL if error.errno == 28 else error}", file=sys.stderr)
        return 1


def is_current():
    """Whether .venv was made from these very files, here, and its Python is still the one that it was made with."""
    try:
        with open(STAMP) as stamp:
            return stamp.read() == fingerprint() and answers(inside("python"), "import msgspec")
    except OSError:
        return False


def fingerprint():
    """What .venv depends on: the pinned packages, the project's own description, and this folder."""
    digest = hashlib.sha256(ROOT.encode())
    for name in ("requirements.txt", "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def find_python():
    """A Python that the packages are made for and that can make virtual environments: this one, or one on PATH."""
    able = None
    for candidate in (sys.executable, *tuple(filter(None, map(shutil.which, NAMES)))):
        if answers(candidate, f"import sys; sys.exit(not {PYTHON_MIN} <= sys.version_info[:2] <= {PYTHON_MAX})"):
            able = candidate
            if answers(candidate, "import venv, ensurepip"):
                return candidate
    if able:
        raise Missing(f"{able} cannot make virtual environments: install its venv (Debian: apt install python3-venv)")
    raise Missing(
        "Python {}.{} to {}.{} is missing (this is {}): install one "
        "(Debian: apt install python3.11 python3.11-venv; macOS: brew install python@3.13)".format(
            *((*PYTHON_MIN, *PYTHON_MAX, sys.version.split()[0]))
        )
    )


def answers(python, program):
    """Whether a Python runs a program to a good end."""
    try:
        return subprocess.call([python, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def check_java():
    """Java from JAVA_HOME or PATH, new enough."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=os.path.join(home, "bin") if home else None)
    version = java_version(java) if java else None
    if version is None or version < JAVA_MIN:
        seen = f"{java} is version {version}" if version else "none in {}".format(home or "PATH")
        raise Missing(
            f"Java {JAVA_MIN} or newer is missing ({seen}): install it "
            "(Debian: apt install openjdk-17-jre-headless; macOS: brew install openjdk@17)"
        )


def java_version(java):
    """The major version that a Java tells of itself, or None where it does not run."""
    try:
        told = subprocess.check_output([java, "-version"], stderr=subprocess.STDOUT).decode("utf-8", "replace")
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', told)
    return int(found.group(1)) if found else None


def check_disk():
    """Room for the packages."""
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < DISK_GB:
        raise Missing(f"{free:.1f} GB are free in {ROOT}, and {DISK_GB} GB are needed: free some")


def install(python):
    """Make .venv anew, fill it from requirements.txt, add the project itself, fetch the jars."""
    say("setting up .venv, once (some minutes, about 1 GB)")
    run([python, "-m", "venv", "--clear", VENV], "the virtual environment could not be made")
    pip = [inside("python"), "-m", "pip", "install", "--disable-pip-version-check"]
    pip += [] if sys.stdout.isatty() else ["--quiet"]
    run([*pip, "-r", os.path.join(ROOT, "requirements.txt")], "the packages could not be installed")
    run([*pip, "--no-deps", "--no-build-isolation", "-e", ROOT], "the project could not be installed")
    if subprocess.call([inside("harness"), "jars"], stdout=subprocess.DEVNULL) != 0:
        raise Missing("the jars could not be fetched (the line above says why); make again goes on")
    with open(STAMP, "w") as stamp:
        stamp.write(fingerprint())
    say("done")


def run(command, what):
    """Run a step; where it fails, say why in one line."""
    done = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    told = done.communicate()[1].decode("utf-8", "replace")
    if done.returncode:
        raise Missing(explain(told, what))


def explain(told, what):
    """One line for what pip or venv complained of."""
    if "No space left" in told or "Errno 28" in told:
        return FULL
    if re.search(r"NewConnectionError|Max retries|timed out|name resolution|Connection|No matching distribution", told):
        return NETWORK
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR", "error", "Error"))]
    return "{}: {}".format(what, (errors or lines or ["no reason given"])[-1])


def inside(name):
    """A program of .venv."""
    return os.path.join(VENV, "bin", name)


def say(text):
    """Tell a person."""
    print(f"setup: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
