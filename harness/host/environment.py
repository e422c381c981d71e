"""The environment of our own child processes: what is meant to reach them, and nothing else of the user's.

A pipeline of another kind is the user's program and gets the user's environment; brokers, our pipeline, the load engine and
the like get this one. A variable that is not kept cannot start another program than ours, nor make a right run fail.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The folder in which the packages `harness` and `pipeline` are installed."""
KEPT = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR"),
        *("JAVA_HOME", "SPARK_SUBMIT_OPTS"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "PYTHONHOME", "VIRTUAL_ENV"),
        *("DOCKER_HOST", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "MALLOC_ARENA_MAX"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE"),
    }
)
PREFIXES = ("HARNESS_", "COVERAGE_")
PINNED: Mapping[str, str] = {
    # Turkish and other letters: Java and Python write numbers, names and paths as in English, in UTF-8.
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PYTHONUTF8": "1",
    # The working folder is no place for modules.
    "PYTHONSAFEPATH": "1",
    # The name of this machine need not resolve.
    "SPARK_LOCAL_IP": "127.0.0.1",
}
STARTERS = (
    *("SPARK_HOME", "SPARK_CONF_DIR", "SPARK_REMOTE", "SPARK_DIST_CLASSPATH", "HADOOP_CONF_DIR", "YARN_CONF_DIR"),
    *("PYSPARK_SUBMIT_ARGS", "PYSPARK_GATEWAY_PORT", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"),
    *("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH", "PYTHONPATH", "PYTHONSTARTUP"),
)
"""Variables that decide what Java, Spark and Python start; none of them reaches a child of ours."""


def own(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child of ours: what is kept of `given`, by default of this process's, and what is pinned."""
    user = os.environ if given is None else given
    kept = {name: value for name, value in user.items() if name in KEPT or name.startswith(PREFIXES)}
    return kept | dict(PINNED) | _modules()


def withheld(given: Mapping[str, str] | None = None) -> list[str]:
    """The variables that are set, decide what is started, and do not reach children of ours."""
    user = os.environ if given is None else given
    return [name for name in STARTERS if user.get(name)]


def _modules() -> dict[str, str]:
    """Where Python finds our modules, if not where it looks anyway."""
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    return {} if ROOT in installed else {"PYTHONPATH": str(ROOT)}
