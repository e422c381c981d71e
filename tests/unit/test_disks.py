"""A disk of a run's own fills, and refuses writes, and is as before when it is mended."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from harness import scenario
from harness.errors import StackError
from harness.host import cgroup, disks

needs_root = pytest.mark.skipif(disks.why_not() is not None, reason=str(disks.why_not()))


@needs_root
def test_full_disk_rejects_writes_until_restored(tmp_path):
    """And what stood there still does."""
    with disks.mounted(tmp_path / "disk") as disk:
        (disk.folder / "kept").write_text("kept")
        assert disk.fill()
        with pytest.raises(OSError, match=str(errno.ENOSPC)):
            (disk.folder / "new").write_bytes(b"x" * 10_000)
        disk.mend()
        (disk.folder / "new").write_bytes(b"x" * 10_000)

        assert not disk.is_full()
        assert "kept" == (disk.folder / "kept").read_text()


@needs_root
def test_idle_disk_becomes_read_only(tmp_path):
    """While a file is open for writing it cannot."""
    with disks.mounted(tmp_path / "disk") as disk:
        with (disk.folder / "open").open("w"):
            assert not disk.read_only()
        assert disk.read_only()
        with pytest.raises(OSError, match=str(errno.EROFS)):
            (disk.folder / "new").touch()
        disk.mend()
        (disk.folder / "new").touch()


@needs_root
def test_nothing_stays_mounted(tmp_path):
    """Not after the context, and not below a folder that a dead run left."""
    with disks.mounted(tmp_path / "disk"):
        assert [tmp_path / "disk"] == [one for one in disks._mounts() if one.is_relative_to(tmp_path)]
        disks.unmount_below(tmp_path)
        assert [] == [one for one in disks._mounts() if one.is_relative_to(tmp_path)]


def test_missing_mount_right_is_named(tmp_path, monkeypatch):
    """In one line, before anything is started."""
    monkeypatch.setattr(disks, "why_not", lambda: "disks of a run's own are mounted by root alone")
    with pytest.raises(StackError, match="by root alone"), disks.mounted(tmp_path / "disk"):
        pass


@pytest.mark.skipif(cgroup.why_not() is not None, reason=str(cgroup.why_not()))
def test_kernel_kills_the_largest_process():
    """Not the neighbour that took the memory; the group is gone afterwards."""
    program = "taken = bytearray(200 << 20); print('there', flush=True); input()"
    with cgroup.group() as group:
        victim = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert victim.stdout is not None
        assert victim.stdin is not None
        victim.stdout.readline()
        group.take_in([victim.pid])
        with group.neighbour():
            assert -9 == victim.wait(30)
        victim.stdout.close()
        victim.stdin.close()

        assert group.kills() >= 1
    assert not group.folder.exists()


@pytest.mark.parametrize(
    ("kind", "on", "said"),
    [
        ("full", "pipeline", "full acts on one of checkpoint, results, leader"),
        ("memory", "leader", "memory acts on one of pipeline"),
        ("reset", "checkpoint", "reset acts on one of leader"),
        ("kill", "results", "kill acts on one of pipeline, leader"),
    ],
)
def test_impossible_fault_target_is_refused(kind, on, said):
    """The sentence names the field and what is allowed."""
    table = {"name": "s", "fault": [{"kind": kind, "on": on, "at": 1}]}

    [problem] = scenario.contradictions(scenario.parse(table, source="s.toml"))
    assert problem.startswith(f"fault[0].on = '{on}': {said}")


def test_checkpoint_fault_needs_a_checkpoint():
    """A pipeline that has none is judged without, and cannot be struck there."""
    table = {"name": "s", "pipeline": {"checkpoint": ""}, "fault": [{"kind": "truncated", "at": 1}]}

    [problem] = scenario.contradictions(scenario.parse(table, source="s.toml"))
    assert problem == "fault[0].kind = 'truncated': it needs a pipeline.checkpoint to look at"


@needs_root
def test_disk_below_a_link_is_unmounted(tmp_path):
    """The kernel tells of mounts by their own paths."""
    (tmp_path / "own").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "own")
    with disks.mounted(tmp_path / "link" / "disk"):
        assert (tmp_path / "own" / "disk").is_mount()

    assert not (tmp_path / "own" / "disk").is_mount()
