"""The jars: pinned, checked, and never half there."""

from __future__ import annotations

import hashlib
import os
import stat
import xml.etree.ElementTree as ET

import pytest

from harness.errors import StackError
from harness.host import jars

CONTENT = {"a-1.jar": b"one", "b-2.jar": b"two"}


@pytest.fixture
def two(tmp_path, monkeypatch):
    """A set of two jars, and an empty cache."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    return jars.JarSet("two", {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()})


def bringing(content):
    """A fetch that brings this."""

    def fetch(_jars, folder, _work):
        for name, data in content.items():
            (folder / name).write_bytes(data)

    return fetch


def test_every_jar_has_a_checksum():
    """ivy.xml and jars.sha256 name the same files, each non-transitive."""
    dependencies = list(ET.parse(jars.HERE / "ivy.xml").iter("dependency"))
    named = {f"{one.get('name')}-{one.get('rev')}.jar" for one in dependencies}

    assert named == set(jars.parse_sums((jars.HERE / "jars.sha256").read_text()))
    assert {"false"} == {one.get("transitive") for one in dependencies}


@pytest.mark.parametrize(
    ("name", "count", "key"),
    [
        pytest.param("spark", 5, "spark-sql-kafka-0-10_2.13-4.2.0.jar", id="spark"),
        pytest.param("broker", 46, "kafka_2.13-4.3.1.jar", id="broker"),
    ],
)
def test_each_set_is_complete(name, count, key):
    """The connector's four and one for local files; a broker's 45 and something that writes its log."""
    found = jars.jar_set(name)

    assert count == len(found.sums)
    assert key in found.sums


def test_what_was_fetched_is_whole(two):
    """The folder holds the jars, and is known again."""
    folder = jars.install(two, bringing(CONTENT))

    assert CONTENT == {path.name: path.read_bytes() for path in folder.glob("*.jar")}
    assert jars.is_whole(two, folder)
    assert [] == jars.faults(two, folder)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param({**CONTENT, "b-2.jar": b"TWO"}, id="another content"),
        pytest.param({"a-1.jar": b"one"}, id="one missing"),
    ],
)
def test_wrong_checksum_leaves_the_cache(two, content):
    """One line that names the jar, and nothing left behind."""
    with pytest.raises(StackError, match=r"^b-2\.jar is not what was published .*1 of 2 jars"):
        jars.install(two, bringing(content))

    assert [] == list(two.folder.parent.iterdir())


def test_a_fetch_that_breaks_leaves_nothing(two):
    """Whatever stood in the folder half-written is gone."""

    def breaking(_jars, folder, _work):
        (folder / "a-1.jar").write_bytes(b"on")
        raise StackError("no network")

    with pytest.raises(StackError, match="no network"):
        jars.install(two, breaking)

    assert [] == list(two.folder.parent.iterdir())


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda folder: (folder / "a-1.jar").write_bytes(b"o"), id="cut short"),
        pytest.param(lambda folder: (folder / "a-1.jar").unlink(), id="removed"),
        pytest.param(lambda folder: (folder / jars.SIZES).write_text("{"), id="unreadable sizes"),
    ],
)
def test_damaged_folder_is_replaced(two, damage):
    """A cached folder is checked at each use, and fetched again where it is damaged."""
    folder = jars.install(two, bringing(CONTENT))
    damage(folder)
    assert not jars.is_whole(two, folder)

    assert folder == jars.install(two, bringing(CONTENT))
    assert jars.is_whole(two, folder)


def test_second_fetch_uses_the_first(two):
    """Two that fetch at once: the first one's folder stays."""

    def overtaken(_jars, folder, work):
        bringing(CONTENT)(_jars, folder, work)
        jars.install(two, bringing(CONTENT))

    folder = jars.install(two, overtaken)

    assert jars.is_whole(two, folder)
    assert [folder] == list(folder.parent.iterdir())


def test_unwritable_disk_is_one_line(two, tmp_path):
    """The message names the folder and the variable."""
    (tmp_path / "jars").write_text("a file where a folder must be")

    with pytest.raises(StackError, match=r"^cannot write the jars to .*HARNESS_CACHE$"):
        jars.install(two, bringing(CONTENT))


def test_bad_mirror_is_named(two, tmp_path, monkeypatch):
    """A wrong HARNESS_IVY_SETTINGS is told before anything is fetched."""
    monkeypatch.setenv("HARNESS_IVY_SETTINGS", str(tmp_path / "absent.xml"))

    with pytest.raises(StackError, match=r"absent\.xml, which is not a file"):
        jars.install(two, jars.with_ivy)


@pytest.mark.parametrize(
    ("says", "code", "version"),
    [
        pytest.param('openjdk version "17.0.15" 2025-04-15', 0, 17, id="17"),
        pytest.param('java version "1.8.0_401"', 0, 8, id="8, in the old notation"),
        pytest.param('openjdk version "25-ea" 2025-09-16', 0, 25, id="early access"),
        pytest.param("Unable to locate a Java Runtime.", 1, None, id="the stub of macOS"),
    ],
)
def test_java_tells_its_version(tmp_path, says, code, version):
    """Every notation that Javas have used."""
    assert version == jars.java_version(a_java(tmp_path, says, code))


@pytest.mark.parametrize(
    ("says", "why"),
    [
        pytest.param('openjdk version "11.0.2"', r"is version 11\)", id="old"),
        pytest.param(None, r"none in JAVA_HOME=", id="none"),
    ],
)
def test_missing_java_says_how_to_install(tmp_path, monkeypatch, says, why):
    """JAVA_HOME counts where it is set; the line names both package managers."""
    if says:
        a_java(tmp_path, says, 0)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    jars.java.cache_clear()

    with pytest.raises(StackError, match=rf"^Java 17 or newer is missing \(.*{why}.*apt install.*brew install"):
        jars.java()
    jars.java.cache_clear()


def a_java(home, says, code):
    """A program that answers as a Java would."""
    program = home / "bin" / "java"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit {code}\n")
    os.chmod(program, stat.S_IRWXU)
    return program
