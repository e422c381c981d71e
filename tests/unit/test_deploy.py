"""The files of `deploy`, validated without a daemon and without a cluster."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import jsonschema
import pytest
import yaml

from pipeline import settings

ROOT = Path(__file__).parents[2]
KUBERNETES = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
SCHEMAS = ROOT / "tests" / "schemas"
BUILT_IN = {"v1", "apps/v1", "batch/v1", "policy/v1", "rbac.authorization.k8s.io/v1"}
ROLES = {"driver", "executor", "master", "worker", "submit", "pipeline", "topics", "generator"}


def resources() -> list:
    """(file, resource) of every document."""
    return [
        pytest.param(resource, id=f"{path.stem}-{resource['kind']}-{number}")
        for path in KUBERNETES
        for number, resource in enumerate(yaml.safe_load_all(path.read_text()))
    ]


def closed(schema: object) -> object:
    """The schema, with unknown fields refused wherever fields are listed."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(value) for name, value in schema.items()}
    if isinstance(inner.get("properties"), dict) and not inner.get("x-kubernetes-preserve-unknown-fields"):
        inner.setdefault("additionalProperties", False)
    return inner


@pytest.mark.parametrize("resource", resources())
def test_resources_fit_their_schema(resource):
    """Built-in kinds by Kubernetes' own schemas, strictly; custom ones by their definitions, unknown fields refused."""
    if resource["apiVersion"] in BUILT_IN:
        kubernetes_validate = pytest.importorskip("kubernetes_validate")
        kubernetes_validate.validate(resource, "1.32", strict=True)
        return
    name = f"{resource['apiVersion'].replace('/', '-')}-{resource['kind']}.json.gz"
    schema = closed(json.loads(gzip.decompress((SCHEMAS / name).read_bytes())))
    schema["properties"] |= {"metadata": True, "apiVersion": True, "kind": True}
    jsonschema.Draft202012Validator(schema).validate(resource)


def test_a_misspelt_field_is_refused():
    """The check can fail."""
    [resource] = yaml.safe_load_all((ROOT / "deploy/kubernetes/pipeline-apache-operator.yaml").read_text())
    resource["spec"]["applicationTolerations"]["restartConfg"] = {}
    with pytest.raises(jsonschema.ValidationError, match="restartConfg"):
        test_resources_fit_their_schema(resource)


def commands() -> list:
    """(role, arguments) of every container that runs the image, in compose and on Kubernetes."""
    found = []
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / "docker-compose.yml").read_text())  # each variable's default
    services = yaml.safe_load(text)["services"]
    for name, service in services.items():
        if "pipeline" in service["image"]:
            found.append(pytest.param(service["command"], id=f"compose-{name}"))
    for path in KUBERNETES:
        for resource in yaml.safe_load_all(path.read_text()):
            spec = resource.get("spec") or {}
            if resource["kind"] == "SparkApplication":
                flags = spec.get("driverArgs") or spec["arguments"]
                found.append(pytest.param(["submit", "submit.py", *flags], id=path.stem))
            elif resource["kind"] == "Job":
                found.append(pytest.param(spec["template"]["spec"]["containers"][0]["args"], id=path.stem))
    return found


@pytest.mark.parametrize("command", commands())
def test_flags_are_those_of_the_program(command):
    """A flag that the program does not know would be found when it is deployed."""
    role, flags = command[0], command[1:]
    assert role in ROLES
    if role == "submit":
        parsed = settings.parse(flags[flags.index("submit.py") + 1 :])
        assert parsed.checkpoint.startswith("/data/")
    elif role in ("topics", "generator"):
        run = subprocess.run(
            [sys.executable, "-m", f"pipeline.{role}", *flags, "--help"], capture_output=True, text=True, check=False
        )
        assert 0 == run.returncode, run.stderr


def test_jars_named_are_those_packaged():
    """Both operators name the connector's jars one by one."""
    from harness.host import jars

    packaged = {name for name in jars.jar_set("spark").sums if not name.startswith("hadoop-bare")}
    for path in KUBERNETES:
        if named := set(re.findall(r"/jars/([\w.-]+\.jar)", path.read_text())):
            assert packaged == named, path.name


def test_entry_point_knows_every_role():
    """And passes bash's own check."""
    script = ROOT / "deploy" / "docker" / "entrypoint.sh"
    subprocess.run(["bash", "-n", script], check=True)
    roles = set(re.findall(r"^([a-z |]+)\)", script.read_text(), re.MULTILINE))

    assert ROLES == {role.strip() for roles_of_line in roles for role in roles_of_line.split("|")}


def test_compose_file_is_valid():
    """By Compose itself, which needs no daemon for that."""
    compose = Path(sys.executable).with_name("docker-compose")
    if not compose.exists():
        pytest.skip("docker-compose is not installed")
    run = subprocess.run([compose, "config", "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (0, "") == (run.returncode, run.stderr)


def test_alertmanager_has_its_receiver():
    """The route leads to a receiver that there is, and Prometheus names the service."""
    alertmanager = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alertmanager.yml").read_text())
    prometheus = yaml.safe_load((ROOT / "deploy" / "prometheus" / "compose.yml").read_text())
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    configs = [*prometheus["alerting"]["alertmanagers"], *prometheus["scrape_configs"]]

    assert alertmanager["route"]["receiver"] in {receiver["name"] for receiver in alertmanager["receivers"]}
    for config in configs:
        for target in config["static_configs"][0]["targets"]:
            assert target.partition(":")[0] in services


def test_compose_publishes_on_loopback_only():
    """No container may gain privileges, each has a bound of memory, and no secret stands in the file."""
    text = (ROOT / "docker-compose.yml").read_text()
    for name, service in yaml.safe_load(text)["services"].items():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert ["no-new-privileges:true"] == service["security_opt"], name
        assert service["mem_limit"], name
    assert not re.search(r"(?i)(password|secret|token)\s*[:=]\s*\S", text)


def test_dockerfile_is_bounded():
    """Two stages, Spark's user, tini, and the entry point of this folder."""
    text = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()

    assert 2 == len(re.findall(r"^FROM ", text, re.MULTILINE))
    assert "185" == re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1]
    assert ["/usr/bin/tini", "-s", "--", "/opt/entrypoint.sh"] == json.loads(
        re.findall(r"^ENTRYPOINT (.+)", text, re.MULTILINE)[0]
    )
    for source in re.findall(r"^COPY (?!--from)(?:--\S+ )*(\S+)", text, re.MULTILINE):
        assert source.startswith("dist/") or (ROOT / source).exists(), source


def test_package_is_the_same_twice(tmp_path, monkeypatch):
    """The same sources give the same bytes, and the pipeline's modules are all in it."""
    monkeypatch.syspath_prepend(str(ROOT / "deploy"))
    import package

    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "a.jar").write_bytes(b"jar")
    first, second = (package.build(tmp_path / name, tmp_path / "jars") for name in ("one", "two"))

    assert first.read_bytes() == second.read_bytes()
    names = set(zipfile.ZipFile(first).namelist())
    assert {f"pipeline/{path.name}" for path in (ROOT / "pipeline").glob("*.py")} <= names
    assert {"submit.py", "jars/a.jar", "requirements.txt", "SHA256SUMS"} <= names


def test_image_has_what_the_pipeline_imports():
    """The Dockerfile takes these pins out of requirements.txt by name."""
    text = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    [pattern] = re.findall(r"grep -E '(.+?)'", text)
    pinned = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if re.match(pattern, line)]

    assert {"pyspark", "py4j", "kafka-python"} <= {line.partition("==")[0] for line in pinned}
