"""The files of `docs/deploy`: each is valid for its program, they agree with each other, and what they run runs."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import redis
import typer
import yaml
from compose_spec import PyCompose
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from costspan._version import __version__
from costspan.cli import app
from costspan.collector import _LAST_WORDS
from costspan.demo.provider import Answer, DemoProvider
from costspan.grafana.export import IMAGES, Choice, exported, rule_files
from costspan.settings import variables
from costspan_processor.collector.otlp import SIGNALS, from_json
from tests.collector.servers import Running, Sink
from tests.grafana.prometheus import binary, free_ports
from tests.processor.budgets.server import MISSING, RedisServer, available

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "docs" / "deploy"
TEXTS: Final = {
    path.relative_to(DEPLOY).as_posix(): path.read_text(encoding="utf-8")
    for path in DEPLOY.rglob("*")
    if path.is_file()
}
COMPOSE: Final[dict[str, Any]] = yaml.safe_load(TEXTS["compose.yaml"])
MANIFESTS: Final[dict[str, dict[str, Any]]] = {
    f"{path.partition('/')[2]} {document['kind']} {document['metadata']['name']}": document
    for path, text in TEXTS.items()
    if path.startswith("kubernetes/")
    for document in yaml.safe_load_all(text)
}
CALL: Final = ROOT / "docs" / "examples" / "call.json"
"""1,000 x $2 + 100 x $8, a million each."""


def manifest(kind: str, name: str) -> dict[str, Any]:
    (found,) = [one for one in MANIFESTS.values() if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def containers() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Every container of the manifests, by where it stands, with its pod."""
    for where, document in MANIFESTS.items():
        pod = document["spec"]["template"]["spec"] if "template" in document.get("spec", {}) else {}
        for container in (*pod.get("initContainers", ()), *pod.get("containers", ())):
            yield f"{where} {container['name']}", container, pod


def of_costspan() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Containers that run `costspan collector`, and their pods."""
    return {where: (one, pod) for where, one, pod in containers() if "costspan-collector" in one["image"]}


def environment(container: Mapping[str, Any]) -> dict[str, str]:
    """What the collector of a container is told: by the image, and by the manifest over that."""
    told = dict(re.findall(r"([A-Z_]+)=(\S+)", TEXTS["Dockerfile"].partition("\nENV ")[2].partition("\nEXPOSE")[0]))
    return told | {one["name"]: one["value"] for one in container["env"]}


# ------------------------------------------------------------------ compose


def test_the_compose_file_is_valid_and_open_to_this_machine_alone() -> None:
    PyCompose.from_yaml(TEXTS["compose.yaml"]).validate()
    for name, service in COMPOSE["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in COMPOSE["volumes"], f"{name}: {volume} depends on where it is started"
        for config in service.get("configs", ()):
            assert config["source"] in COMPOSE["configs"]
    health = COMPOSE["services"]["costspan"]["healthcheck"]["test"]
    compile(health[-1], "health check", "exec")
    assert environment_of_compose()["COSTSPAN_COLLECTOR_ADMIN"].endswith(re.findall(r":(\d+)/readyz", health[-1])[0])


def environment_of_compose() -> dict[str, str]:
    told: dict[str, str] = COMPOSE["services"]["costspan"]["environment"]
    return environment({"env": [{"name": name, "value": value} for name, value in told.items()]})


def test_the_compose_file_goes_on_top_of_the_exported_one() -> None:
    """What both have is one service, with one image; nothing else wants the same port of the machine."""
    files = exported(Choice("scrape"))
    theirs = yaml.safe_load(files["compose.yaml"])["services"]
    ours = COMPOSE["services"]
    assert set(ours) & set(theirs) == {"prometheus"}
    both, other = ours["prometheus"], theirs["prometheus"]
    assert both["image"] == other["image"]
    assert set(both["command"][1:]) == set(other["command"][1:])
    assert both["ports"] == other["ports"]
    published = [port for name in {**ours, **theirs} for port in (ours.get(name) or theirs[name]).get("ports", ())]
    assert len(published) == len(set(published))
    assert ours["collector"]["image"] == IMAGES["collector"]
    (wanted,) = yaml.safe_load(COMPOSE["configs"]["prometheus"]["content"])["rule_files"]
    folder, _, pattern = wanted.rpartition("/")
    assert f"./prometheus:{folder}:ro" in other["volumes"]
    names = [path.removeprefix("prometheus/") for path in files if path.startswith("prometheus/")]
    rules = [path.removeprefix("prometheus/") for path in rule_files(files)]
    assert fnmatch.filter(names, pattern) == rules


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    for path, text in exported(Choice("scrape")).items():
        if path.startswith("prometheus/"):
            (tmp_path / Path(path).name).write_text(text)
    config = tmp_path / "costspan.yml"
    config.write_text(COMPOSE["configs"]["prometheus"]["content"].replace("/etc/prometheus", str(tmp_path)))
    done = subprocess.run([binary("promtool3"), "check", "config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("rules found") == 3


# ------------------------------------------------------------------ Kubernetes


@pytest.mark.parametrize("where", MANIFESTS)
def test_a_manifest_is_valid(where: str) -> None:
    """For the oldest release that knows all of it, and the newest that the schemas are of."""
    for version in ("1.30", kubernetes_validate.latest_version()):
        kubernetes_validate.validate(MANIFESTS[where], version, strict=True)


def test_a_selector_finds_its_pods() -> None:
    pods = [
        one["spec"]["template"]["metadata"]["labels"] for one in MANIFESTS.values() if "template" in one.get("spec", {})
    ]
    for where, one in MANIFESTS.items():
        spec = one.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector")
        if selector:
            wanted = selector.get("matchLabels", selector)
            assert sum(wanted.items() <= pod.items() for pod in pods) == 1, where
    for one in (manifest("Deployment", "costspan-gateway"), manifest("Deployment", "shop")):
        (allowed,) = manifest("NetworkPolicy", "costspan-redis")["spec"]["ingress"][0]["from"]
        assert allowed["podSelector"]["matchLabels"].items() <= one["spec"]["template"]["metadata"]["labels"].items()


def test_containers_run_as_nobody_and_write_nowhere_but_to_volumes() -> None:
    names = {one["metadata"]["name"] for one in MANIFESTS.values() if one["kind"] == "ConfigMap"}
    for where, container, pod in containers():
        if "shop" in container["image"]:
            continue  # the reader's own
        security = {**pod["securityContext"], **container["securityContext"]}
        assert security["runAsNonRoot"] is True, where
        assert security["runAsUser"] > 0, where
        assert security["readOnlyRootFilesystem"] is True, where
        assert security["allowPrivilegeEscalation"] is False, where
        assert security["capabilities"] == {"drop": ["ALL"]}, where
        assert {"requests", "limits"} <= container["resources"].keys(), where
        volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
        for mount in container["volumeMounts"]:
            volume = volumes.get(mount["name"], {})
            assert volume.get("configMap", {"name": min(names)})["name"] in names, where
    for where, (container, pod) in of_costspan().items():
        journal = environment(container)["XDG_DATA_HOME"]
        assert journal in {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}, (
            where
        )
        user = re.search(r"^USER (\d+)", TEXTS["Dockerfile"], re.MULTILINE)
        assert user is not None
        assert {**pod["securityContext"], **container["securityContext"]}["runAsUser"] == int(user[1]), where


def test_there_is_time_to_end_in() -> None:
    """Nothing new comes, what is in hand ends, and what it cost is written down before the pod is killed."""
    for where, (container, pod) in of_costspan().items():
        drain = float(environment(container).get("COSTSPAN_COLLECTOR_DRAIN", options()["COSTSPAN_COLLECTOR_DRAIN"]))
        before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {"seconds": 0})["seconds"]
        assert pod["terminationGracePeriodSeconds"] >= before + 2 * drain + _LAST_WORDS, where
    grace = float(COMPOSE["services"]["costspan"]["stop_grace_period"].removesuffix("s"))
    assert grace >= 2 * float(options()["COSTSPAN_COLLECTOR_DRAIN"]) + _LAST_WORDS


def test_a_balancer_hears_of_a_gateway_that_goes_before_it_is_gone() -> None:
    gateway = manifest("Deployment", "costspan-gateway")["spec"]["template"]["spec"]["containers"][0]
    every = balancer()["exporters"]["load_balancing"]["resolver"]["dns"]["interval"]
    assert gateway["lifecycle"]["preStop"]["sleep"]["seconds"] >= 2 * float(every.removesuffix("s"))


# ------------------------------------------------------------------ the stock collector


def balancer() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(manifest("ConfigMap", "costspan-balancer")["data"]["otelcol.yaml"])
    return config


def without_load_balancing(config: dict[str, Any]) -> dict[str, Any]:
    """The exporter that the tests' collector lacks as two that it has, one of which it makes for each gateway.

    Its own timeout, retries and queue are read by the same code as those of any other exporter.
    """
    exporters = config["exporters"]
    own = exporters.pop("load_balancing")
    inner = own.pop("protocol")["otlp"]
    assert own.pop("resolver")["dns"].keys() == {"hostname", "port", "interval"}
    assert own.pop("routing_key") == "traceID"
    exporters["otlp_grpc/own"] = {**own, "endpoint": "costspan-gateway:4317"}
    exporters["otlp_grpc/inner"] = {**inner, "endpoint": "costspan-gateway:4317"}
    for pipeline in config["service"]["pipelines"].values():
        if "load_balancing" in pipeline["exporters"]:
            pipeline["exporters"] = ["otlp_grpc/own", "otlp_grpc/inner"]
    return config


@pytest.mark.parametrize("where", ["compose", "balancer"])
def test_the_stock_collector_takes_its_configuration(where: str, tmp_path: Path) -> None:
    text = COMPOSE["configs"]["otelcol"]["content"]
    config = yaml.safe_load(text) if where == "compose" else without_load_balancing(balancer())
    file = tmp_path / "otelcol.yaml"
    file.write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [binary("otelcol"), "validate", f"--config={file}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_client_waits_longer_than_whom_it_asks() -> None:
    exporter = balancer()["exporters"]["load_balancing"]
    # What a gateway waits for by default, in the variable of OpenTelemetry.
    for timeout in (exporter["timeout"], exporter["protocol"]["otlp"]["timeout"]):
        assert float(timeout.removesuffix("s")) > 10


# ------------------------------------------------------------------ names, ports, versions


@cache
def options() -> dict[str, Any]:
    """The options of `costspan collector`, by variable."""
    command: Any = typer.main.get_command(app)
    return {option.envvar: option.default for option in command.commands["collector"].params if option.envvar}


@pytest.mark.parametrize("path", TEXTS)
def test_every_variable_that_is_named_exists(path: str) -> None:
    known = {name for name, _, _ in variables()} | options().keys() | {"COSTSPAN"}
    assert set(re.findall(r"\bCOSTSPAN(?:_[A-Z]+)*\b", TEXTS[path])) <= known


@pytest.mark.parametrize("path", TEXTS)
def test_images_of_ours_are_of_this_version(path: str) -> None:
    assert set(re.findall(r"costspan-(?:collector|autoinstrumentation-python):(\S+)", TEXTS[path])) <= {__version__}


def test_images_have_a_version_and_are_those_of_the_export() -> None:
    images = [one["image"] for one in COMPOSE["services"].values()] + [one["image"] for _, one, _ in containers()]
    known = {image.partition(":")[0]: image for image in IMAGES.values()}
    for image in images:
        assert re.fullmatch(r"[\w./-]+:v?[0-9.]+", image), image
        if image.startswith("otel/"):
            assert image == known["otel/opentelemetry-collector-contrib"]


def test_ports_are_the_same_everywhere() -> None:
    """An address is a service at a port that it has, which is a port that its container listens on."""
    default = {
        name: str(options()[f"COSTSPAN_COLLECTOR_{name}"]).rpartition(":")[2] for name in ("GRPC", "HTTP", "ADMIN")
    }
    assert re.search(r"^EXPOSE (.+)$", TEXTS["Dockerfile"], re.MULTILINE)[1].split() == list(default.values())  # type: ignore[index]
    for where, (container, _) in of_costspan().items():
        told = {name: environment(container)[f"COSTSPAN_COLLECTOR_{name}"] for name in default}
        heard = {name: address.rpartition(":")[2] for name, address in told.items() if address != "off"}
        assert heard.items() <= default.items(), where
        for port in container["ports"]:
            assert heard[port["name"].upper()] == str(port["containerPort"]), where
    services = {one["metadata"]["name"]: one for one in MANIFESTS.values() if one["kind"] == "Service"}
    for name, service in services.items():
        (pod,) = [
            one["spec"]["template"]
            for one in MANIFESTS.values()
            if "template" in one.get("spec", {})
            and service["spec"]["selector"].items() <= one["spec"]["template"]["metadata"]["labels"].items()
        ]
        (container,) = pod["spec"]["containers"]
        named = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert all(named[port["targetPort"]] == port["port"] for port in service["spec"]["ports"]), name
    resolver = balancer()["exporters"]["load_balancing"]["resolver"]["dns"]
    assert int(resolver["port"]) in {port["port"] for port in services[resolver["hostname"]]["spec"]["ports"]}
    assert services[resolver["hostname"]]["spec"]["clusterIP"] == "None"
    for _, container, _ in containers():
        for one in container.get("env", ()):
            for host, port in re.findall(r"redis://([\w-]+):(\d+)", one["value"]):
                assert int(port) in {port["port"] for port in services[host]["spec"]["ports"]}
    for one in MANIFESTS.values():
        told = one.get("spec", {}).get("template", {}).get("metadata", {}).get("annotations", {})
        assert told.get("prometheus.io/port", default["ADMIN"]) == default["ADMIN"]


# ------------------------------------------------------------------ run


@contextlib.contextmanager
def running(told: Mapping[str, str], folder: Path) -> Iterator[Running]:
    """`costspan collector` with nothing but variables, on ports that are free here."""
    ports = free_ports(3)
    names = ("GRPC", "HTTP", "ADMIN")
    here = {
        f"COSTSPAN_COLLECTOR_{name}": f"127.0.0.1:{port}"
        for name, port in zip(names, ports, strict=True)
        if told[f"COSTSPAN_COLLECTOR_{name}"] != "off"
    }
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "COSTSPAN_"))}
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "costspan", "collector"],
            env={**clean, **told, **here, "XDG_DATA_HOME": str(folder)}, cwd=folder, stdout=out, stderr=out,
        )  # fmt: skip
    collector = Running(process, ports, log, "http")
    try:
        deadline = time.monotonic() + 30
        while "on to" not in collector.log():
            assert process.poll() is None, collector.log()
            assert time.monotonic() < deadline, collector.log()
            time.sleep(0.05)
        yield collector
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.skipif(not available() and os.environ.get("CI") != "true", reason=MISSING)
@pytest.mark.parametrize("where", of_costspan())
def test_a_collector_runs_as_its_manifest_says(where: str, tmp_path: Path) -> None:
    """With the Redis of redis.yaml and the budgets of budgets.yaml."""
    container, _ = of_costspan()[where]
    told = environment(container)
    budgets = tmp_path / "costspan.toml"
    assert told["COSTSPAN_CONFIG"] == "/etc/costspan/costspan.toml"
    budgets.write_text(manifest("ConfigMap", "costspan-budgets")["data"]["costspan.toml"])
    arguments = manifest("StatefulSet", "costspan-redis")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[0] == "redis-server"
    request = ExportTraceServiceRequest.FromString(from_json("traces", CALL.read_bytes()))
    (span,) = request.resource_spans[0].scope_spans[0].spans
    span.end_time_unix_nano = span.start_time_unix_nano = time.time_ns()
    with RedisServer(tmp_path, *arguments[1:]) as server, Sink() as sink:
        here = {
            "COSTSPAN_CONFIG": str(budgets),
            "COSTSPAN_BUDGET_STORE": server.patient_url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sink.http}",
        }
        with running({**told, **here}, tmp_path) as collector:
            with grpc.insecure_channel(f"127.0.0.1:{collector.grpc}") as channel:
                export: Any = channel.unary_unary(f"/{SIGNALS['traces'].service}/Export")
                export(request.SerializeToString(), timeout=20)
            (came,) = sink.spans()
            assert {one.key: one.value for one in came.attributes}["costspan.cost.total"].double_value == 0.0028
            services = re.findall(r'costspan_calls_total\{.*service_name="(\w+)"', collector.metrics())
            assert services == (["shop"] if "service.name" in told.get("COSTSPAN_DIMENSIONS", "") else [])
            for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
                if probe in container:
                    path = container[probe]["httpGet"]["path"]
                    urllib.request.urlopen(f"{collector.admin}{path}", timeout=10).close()
            assert collector.stop() == 0
        kept = redis.Redis(port=server.port)
        assert kept.config_get("appendonly") == {"appendonly": "yes"}
        assert kept.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        for budget, held in (("everything", r'"spent": "0\.0028'), ("services", r'"shop": "0\.0028"')):
            shown = subprocess.run(
                [sys.executable, "-m", "costspan", "budgets", "show", budget, "--json"],
                env={**os.environ, **here}, capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert re.search(held, shown.stdout), shown.stdout


# ------------------------------------------------------------------ injection by the Operator


INSTRUMENTATION: Final[dict[str, Any]] = yaml.safe_load(TEXTS["operator/instrumentation.yaml"])
MOUNTED: Final = "opentelemetry/instrumentation/auto_instrumentation"
"""What the operator puts first on PYTHONPATH, in the folder that it has copied; the folder itself comes after it."""

PROGRAM: Final = """
import sys
from openai import OpenAI
import costspan

assert costspan.__file__.startswith(sys.argv[1]), costspan.__file__
assert "grpc" not in sys.modules and "pydantic_core" in sys.modules
assert not sys.modules["pydantic_core"].__file__.startswith(sys.argv[1])
OpenAI().chat.completions.create(model="gpt-4.1", messages=[{"role": "user", "content": "ping"}])
"""


def uv(*arguments: str) -> None:
    done = subprocess.run(
        [binary("uv"), *arguments], cwd=DEPLOY / "operator", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def injected(folder: Path) -> Path:
    """/autoinstrumentation of the image, made by the commands of its Dockerfile, for the Python that it has."""
    target = folder / "autoinstrumentation"
    uv("build", "--quiet", "--wheel", f"--out-dir={folder}", str(ROOT))
    (wheel,) = folder.glob("costspan-*.whl")
    stage = TEXTS["operator/Dockerfile"].partition(" AS glibc")[0:3]
    image = stage[0].rpartition("FROM python:")[2].partition("-")[0]
    commands = re.findall(r"^RUN pip install --no-cache-dir (.+)$", stage[2].partition("\nFROM")[0], re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        told = command.replace("/autoinstrumentation", str(target)).replace("$COSTSPAN", str(wheel))
        of_image = [f"--python-version={image}", "--only-binary=:all:"]
        uv("pip", "install", "--quiet", f"--python={sys.executable}", *of_image, *shlex.split(told))
    return target


def test_an_injected_application_has_its_calls_priced(tmp_path: Path) -> None:
    """The application has no costspan and no OpenTelemetry, and another Python than the image."""
    target = injected(tmp_path)
    application = tmp_path / "venv" / "bin" / "python"
    uv("venv", "--quiet", f"--python={sys.executable}", str(tmp_path / "venv"))
    uv("pip", "install", "--quiet", f"--python={application}", "openai")
    spec = INSTRUMENTATION["spec"]
    with Sink() as sink, DemoProvider({"ping": Answer("pong")}) as provider:
        by_operator = {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_PROPAGATORS": ",".join(spec["propagators"]),
            "OTEL_TRACES_SAMPLER": spec["sampler"]["type"],
            "PYTHONPATH": f"{target / MOUNTED}:{target}",
            **{one["name"]: one["value"] for one in spec["python"]["env"]},
        }
        done = subprocess.run(
            [application, "-c", PROGRAM, str(target)], capture_output=True, text=True, check=False, cwd=tmp_path,
            env={
                **by_operator,
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sink.http}",
                "OPENAI_BASE_URL": provider.openai,
                "OPENAI_API_KEY": "x",
            },
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        (call,) = [span for span in sink.spans() if span.name == "chat gpt-4.1"]
        told = {one.key: one.value for one in call.attributes}
        assert told["costspan.cost.status"].string_value == "priced"
        assert told["costspan.cost.total"].double_value > 0
        assert told["costspan.budget.status"].string_value == "ok"
        metrics = b"".join(one.body for one in sink.requests if one.signal == "metrics")
        assert b"costspan.cost" in metrics


def test_the_operator_finds_what_it_copies_and_the_endpoint_is_for_http() -> None:
    dockerfile = TEXTS["operator/Dockerfile"]
    for folder in ("/autoinstrumentation", "/autoinstrumentation-musl"):
        assert re.search(rf"^COPY --from=\w+ {folder} {folder}$", dockerfile, re.MULTILINE)
    assert INSTRUMENTATION["spec"]["exporter"]["endpoint"].endswith(":4318")
    assert INSTRUMENTATION["apiVersion"] == "opentelemetry.io/v1alpha1"
    assert INSTRUMENTATION["spec"].keys() == {"exporter", "propagators", "sampler", "python"}
    assert INSTRUMENTATION["spec"]["python"].keys() == {"image", "env"}
