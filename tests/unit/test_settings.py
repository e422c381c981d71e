"""The pipeline's flags: a profile, what overrides it, and one line for a wrong one."""

from __future__ import annotations

import pytest

from harness.job.clickstream.contract import QUERIES
from pipeline import settings

NEEDED = ["--bootstrap", "b:1", "--checkpoint", "c", "--output", "o"]


def test_a_flag_outranks_its_profile():
    """What is not given comes from the profile."""
    given = settings.parse([*NEEDED, "--profile", "specification", "--partitions", "3"])

    assert (3, 10_000, "join") == (given.partitions, given.trigger_ms, given.conversions)


def test_queries_start_batches_apart():
    """By default; the specification has one interval for all."""
    ours, specified = settings.parse(NEEDED), settings.parse([*NEEDED, "--profile", "specification"])

    assert [1600, 1648, 1696, 1744, 1792] == [ours.interval_ms(query) for query in settings.TURNS]
    assert {10_000} == {specified.interval_ms(query) for query in settings.TURNS}
    assert set(QUERIES) == set(settings.TURNS)


@pytest.mark.parametrize(
    ("text", "ms"), [("0 ms", 0), ("1500ms", 1500), ("10 seconds", 10_000), ("2 minutes", 120_000)]
)
def test_an_interval_has_a_unit(text, ms):
    """As Spark writes it, or shorter."""
    assert ms == settings.parse([*NEEDED, "--trigger", text]).trigger_ms


@pytest.mark.parametrize(
    ("given", "by_submit", "master"),
    [
        pytest.param((), False, "local[2]", id="none"),
        pytest.param((), True, "", id="what spark-submit says"),
        pytest.param(("--master", "local[4]"), True, "local[4]", id="its own flag"),
    ],
)
def test_submitted_master_is_kept(monkeypatch, given, by_submit, master):
    """A job that is submitted to a cluster must not run in its driver alone."""
    monkeypatch.delenv(settings.GATEWAY, raising=False)
    if by_submit:
        monkeypatch.setenv(settings.GATEWAY, "1")

    assert master == settings.parse([*NEEDED, *given]).master


def test_committed_records_are_the_default():
    """An aborted record is none, unless that is asked for."""
    asked = settings.parse([*NEEDED, "--isolation", "read_uncommitted"])

    assert ("read_committed", "read_uncommitted") == (settings.parse(NEEDED).isolation, asked.isolation)


def test_queries_keep_their_order():
    """A sink is named per query; the others keep their own."""
    given = settings.parse([*NEEDED, "--queries", "revenue,page_views", "--sink", "revenue=kafka"])

    assert ("page_views", "revenue") == given.queries
    assert ("kafka", "kafka", "kafka") == tuple(given.sinks[name] for name in ("page_views", "revenue", "sessions"))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        pytest.param([], "--bootstrap", id="nothing"),
        pytest.param([*NEEDED[:3], "s3a://bucket/c", *NEEDED[4:]], "no folder on this machine", id="elsewhere"),
        pytest.param([*NEEDED, "--queries", "page_view"], "'page_view' is no query", id="an unknown query"),
        pytest.param([*NEEDED, "--sink", "revenue=file"], "QUERY=SINK", id="an unknown sink"),
        pytest.param([*NEEDED[:3], "", *NEEDED[4:]], "names no folder", id="an empty checkpoint"),
        pytest.param([*NEEDED[:5], " "], "names no folder", id="an empty output"),
        pytest.param([*NEEDED, "--trigger", "often"], "no interval", id="no interval"),
        pytest.param([*NEEDED, "--trigger", f"{10**20} ms"], "of a day at most", id="a trigger beyond Java's long"),
        pytest.param([*NEEDED, "--trigger", "1441 minutes"], "of a day at most", id="a trigger of more than a day"),
        pytest.param([*NEEDED, "--partitions", "0"], "whole number of 1 or more", id="no partitions"),
        pytest.param([*NEEDED, "--partitions", str(2**31)], "of 2147483647 at most", id="partitions beyond Java's int"),
        pytest.param([*NEEDED, "--max-offsets-per-trigger", "9" * 5000], "whole number", id="no number of Java's"),
        *(
            pytest.param([*NEEDED, "--driver-memory", size], "no size of memory", id=f"memory of {size!r}")
            for size in ("abc", "", "0g", "1.5g", "10b", "1x", "9999999999t")
        ),
        pytest.param([*NEEDED, "--conf", "spark.sql.shuffle.partitions=7"], "use --partitions", id="one with a flag"),
        pytest.param([*NEEDED, "--conf", "spark.sql.session.timeZone=CET"], "all times are UTC", id="another time"),
        *(
            pytest.param([*NEEDED, "--conf", f"{name}=other"], why, id=f"{name} is pinned")
            for name, (_, why) in settings.PINNED.items()
        ),
        pytest.param([*NEEDED, "--metrics-port", "65536"], "of 65535 at most", id="a port beyond the last"),
        pytest.param([*NEEDED, "--lag-group", " "], "names no consumer group", id="an empty consumer group"),
        pytest.param([*NEEDED, "--conf", "x=1"], "spark.NAME=VALUE", id="no setting of Spark"),
    ],
)
def test_wrong_flag_exits_2(capsys, args, said):
    """It names the flag's value and what is allowed."""
    with pytest.raises(SystemExit) as ended:
        settings.parse(args)

    error = capsys.readouterr().err
    assert 2 == ended.value.code
    assert said in error
    assert 1 == len(error.strip().splitlines())


def test_metrics_are_off_and_on_loopback_by_default():
    """Neither port nor group without a flag; every network only where it is asked for."""
    quiet, asked = settings.parse(NEEDED), settings.parse([*NEEDED, "--metrics-port", "9464"])

    assert (None, None) == (quiet.metrics_port, quiet.lag_group)
    assert (9464, "127.0.0.1") == (asked.metrics_port, asked.metrics_host)


@pytest.mark.parametrize(
    ("size", "kibibytes"),
    [("1g", 2**20), ("2GB", 2**21), ("512m", 2**19), ("512", 2**19), ("1048576kb", 2**20), ("1073741824b", 2**20)],
)
def test_memory_sizes_match_java(size, kibibytes):
    """To Java a number alone is bytes, and gb no unit."""
    assert f"{kibibytes}k" == settings.parse([*NEEDED, "--driver-memory", size]).driver_memory


def test_rate_limit_names_a_topic(capsys):
    """A query that reads both topics takes twice as many."""
    with pytest.raises(SystemExit):
        settings.parse(["--help"])

    assert "records of a topic in a batch of a query" in " ".join(capsys.readouterr().out.split())


@pytest.mark.filterwarnings("ignore:open_text is deprecated")  # kafka-python, when it is imported
@pytest.mark.parametrize("value", ["x", "0", "nan", "inf", "-1"])
def test_bad_generator_rate_is_one_line(capsys, monkeypatch, value):
    """It names the flag and what is allowed."""
    from pipeline import generator

    monkeypatch.setattr("sys.argv", ["generator", f"--eps={value}"])
    with pytest.raises(SystemExit) as ended:
        generator.main()

    assert 2 == ended.value.code
    said = f"generator: argument --eps: '{value}' is no number above 0 and below 1e9; see --help\n"
    assert said == capsys.readouterr().err


def test_checkpoint_dependencies_are_named():
    """A change of any of these would be misread from an old checkpoint."""
    names = set(settings.parse(NEEDED).of_state())

    assert {"queries", "sinks", "partitions", "state store", "conversions", "deduplicate", "topic prefix"} == names
