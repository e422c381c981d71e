"""The jars that Python does not bring: Spark's Kafka connector, and a broker.

`ivy.xml` names every jar and `jars.sha256` its sum; the Ivy inside the pyspark wheel fetches them once
into a cache outside the project. A folder of the cache is complete or absent, never half-written, and
its name changes with the sums, so that another version never meets an old folder.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from harness.errors import StackError
from harness.host import environment

HERE = Path(__file__).parent
JAVA_MIN = 17
SIZES = ".sizes.json"
STALLED_S = 60.0
JAVA_HINT = "install it (Debian: apt install openjdk-17-jre-headless; macOS: brew install openjdk@17)"
NETWORK_HINT = "check the network, or name a mirror's ivysettings.xml in HARNESS_IVY_SETTINGS"


@dataclass(frozen=True, slots=True)
class JarSet:
    """The jars that belong together: their name in ivy.xml, and the SHA-256 sum of each."""

    name: str
    sums: Mapping[str, str]

    @property
    def folder(self) -> Path:
        """Where they lie when they are there."""
        pinned = hashlib.sha256(repr(sorted(self.sums.items())).encode()).hexdigest()
        return cache() / "jars" / f"{self.name}-{pinned[:8]}"


def spark_jars() -> Path:
    """The folder with the connector's jars, fetched where it is missing."""
    return _ready(jar_set("spark"))


def broker_jars() -> Path:
    """The folder with a broker's jars, fetched where it is missing."""
    return _ready(jar_set("broker"))


def spark_home() -> Path:
    """The folder of the pyspark package, which has all of Spark; StackError where it is not installed."""
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise StackError("pyspark is not installed: install the requirements again (make env)")
    return Path(spec.origin).parent


def cache() -> Path:
    """What is kept between runs and outside the project: ``HARNESS_CACHE``, or the user's cache folder."""
    named = os.environ.get("HARNESS_CACHE")
    return Path(named).expanduser().absolute() if named else platformdirs.user_cache_path("streaming-harness")


def jar_set(name: str) -> JarSet:
    """The jars of one configuration of ivy.xml with their sums; a jar without a sum is a KeyError."""
    sums = parse_sums((HERE / "jars.sha256").read_text())
    dependencies = ET.parse(HERE / "ivy.xml").iter("dependency")
    ours = [dependency for dependency in dependencies if dependency.get("conf") == f"{name}->default"]
    names = [f"{dependency.get('name')}-{dependency.get('rev')}.jar" for dependency in ours]
    return JarSet(name, {jar: sums[jar] for jar in names})


def parse_sums(text: str) -> dict[str, str]:
    """File name → SHA-256, from the format of ``sha256sum``."""
    return {name: digest for digest, name in (line.split() for line in text.splitlines())}


def faults(jars: JarSet, folder: Path) -> list[str]:
    """The jars in `folder` that are missing or whose sum is wrong; reads every byte."""
    return [jar for jar, digest in jars.sums.items() if _sum(folder / jar) != digest]


def is_whole(jars: JarSet, folder: Path) -> bool:
    """Whether the names and sizes in `folder` are those it was checked with; cheap, for every use."""
    try:
        sizes = json.loads((folder / SIZES).read_text())
        return bool(sizes.keys() == jars.sums.keys() and sizes == _sizes(folder))
    except (OSError, ValueError, AttributeError):
        return False


@functools.cache
def java() -> Path:
    """A Java of version 17 or newer, from ``JAVA_HOME`` or ``PATH``; StackError names how to install one."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None)
    if found is None:
        place = f"JAVA_HOME={home}" if home else "PATH"
        raise StackError(f"Java {JAVA_MIN} or newer is missing (none in {place}): {JAVA_HINT}")
    version = java_version(Path(found))
    if version is None or version < JAVA_MIN:
        seen = f"{found} is version {version}" if version else f"{found} does not run"
        raise StackError(f"Java {JAVA_MIN} or newer is missing ({seen}): {JAVA_HINT}")
    return Path(found)


def java_version(program: Path) -> int | None:
    """The major version that a Java prints, or None where it does not run."""
    try:
        printed = subprocess.run(
            [program, "-version"], capture_output=True, text=True, timeout=30, env=environment.own()
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', printed.stderr + printed.stdout)
    return int(found[1]) if found and printed.returncode == 0 else None


def install(jars: JarSet, fetch: Callable[[JarSet, Path, Path], None]) -> Path:
    """Fetch a set into a temporary folder beside its place, check every sum, then move it there whole.

    `fetch(jars, folder, work)` puts the jars into `folder` and may litter `work`. Where two do this at
    once, the first to finish wins and both have the same files.
    """
    target = jars.folder
    with _disk_errors(target), _beside(target) as work:
        fresh = work / "jars"
        fresh.mkdir()
        fetch(jars, fresh, work)
        wrong = faults(jars, fresh)
        if wrong:
            raise StackError(
                f"{wrong[0]} is not what was published (its SHA-256 is not that of harness/host/jars.sha256; "
                f"{len(wrong)} of {len(jars.sums)} jars): try again, and look at the mirror or proxy between"
            )
        (fresh / SIZES).write_text(json.dumps(_sizes(fresh)))
        _move(fresh, jars, work)
    return target


def with_ivy(jars: JarSet, folder: Path, work: Path) -> None:
    """Fetch a set with Ivy, printing its progress on stderr; StackError names the first jar that failed."""
    settings = Path(os.environ.get("HARNESS_IVY_SETTINGS") or HERE / "ivysettings.xml")
    if not settings.is_file():
        raise StackError(f"HARNESS_IVY_SETTINGS names {settings}, which is not a file: correct or unset it")
    output = _run_ivy(_ivy_command(jars, settings, folder, work), jars)
    missing = [jar for jar in jars.sums if not (folder / jar).exists()]
    if missing:
        why = next((line.strip() for line in output if "Server access" in line or "Exception" in line), "")
        seen = f" ({why})" if why else ""
        raise StackError(f"{missing[0]} could not be fetched{seen}: {NETWORK_HINT}")


def _ready(jars: JarSet) -> Path:
    return jars.folder if is_whole(jars, jars.folder) else install(jars, with_ivy)


def _ivy_command(jars: JarSet, settings: Path, folder: Path, work: Path) -> list[str]:
    """Ivy's command line; everything that it would keep in the home folder goes to `work`."""
    command = [str(java()), f"-Divy.default.ivy.user.dir={work / 'ivy'}", "-cp", str(_ivy_jar())]
    command += ["org.apache.ivy.Main", "-settings", str(settings), "-ivy", str(HERE / "ivy.xml")]
    command += ["-cache", str(work / "ivy"), "-confs", jars.name, "-types", "jar", "bundle"]
    return [*command, "-retrieve", f"{folder}/[artifact]-[revision].[ext]"]


def _ivy_jar() -> Path:
    folder = spark_home() / "jars"
    found = next(iter(sorted(folder.glob("ivy-*.jar"))), None)
    if found is None:
        raise StackError(f"no Ivy in {folder}: install the requirements again (make env)")
    return found


def _run_ivy(command: list[str], jars: JarSet) -> list[str]:
    """Run Ivy, show each jar as it comes, end it where nothing has come for a minute; its last lines."""
    lines: list[str] = []
    done = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as ivy:
        assert ivy.stdout is not None
        watch = _watchdog(ivy)
        try:
            for line in ivy.stdout:
                if line.lstrip().startswith(("found", "[SUCCESSFUL")):
                    watch.cancel()
                    watch = _watchdog(ivy)
                if line.lstrip().startswith("[SUCCESSFUL"):
                    done += 1
                    _show(f"{jars.name}: jar {done} of {len(jars.sums)}", last=done == len(jars.sums))
                lines.append(line)
        except BaseException:  # who asked this process to end has not asked that one
            ivy.kill()
            raise
        finally:
            watch.cancel()
    return lines[-200:]


def _watchdog(process: subprocess.Popen[str]) -> threading.Timer:
    timer = threading.Timer(STALLED_S, process.kill)
    timer.daemon = True
    timer.start()
    return timer


def _show(text: str, last: bool) -> None:
    """One line that is written over on a terminal, and the last one alone elsewhere."""
    if sys.stderr.isatty():
        print(f"\r{text} ", end="\n" if last else "", file=sys.stderr, flush=True)
    elif last:
        print(text, file=sys.stderr, flush=True)


def _sum(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.glob("*.jar"))}


def _move(fresh: Path, jars: JarSet, work: Path) -> None:
    """Put a complete folder in its place; a broken one goes first, a whole one of someone quicker stays."""
    target = jars.folder
    if target.exists() and not is_whole(jars, target):
        with contextlib.suppress(FileNotFoundError):
            os.replace(target, work / "broken")
    try:
        os.replace(fresh, target)
    except OSError:
        if not is_whole(jars, target):
            raise


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as work:
        yield Path(work)


@contextlib.contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    """Turn a full or read-only disk into one line."""
    try:
        yield
    except OSError as error:
        raise StackError(
            f"cannot write the jars to {target.parent} ({error.strerror or error}): "
            "free some space there, or name another folder in HARNESS_CACHE"
        ) from error
