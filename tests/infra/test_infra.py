"""Where it runs: job templates, manifests and images against their schemas."""

import asyncio
import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose
from docker.types import HostConfig
from prefect import get_client
from prefect.blocks.system import Secret
from prefect.client.schemas.objects import FlowRun
from prefect.flows import load_flow_from_entrypoint
from prefect.server.schemas.actions import WorkPoolCreate
from prefect.utilities.templating import apply_values
from prefect.workers.process import ProcessJobConfiguration
from runs import ROOT

from infra.apply import CPU_POOL, FLOWS, GPU_POOL, PIPELINES, SILENCE, apply, automations, job_template
from infra.gpus import share_gpus
from tasks.pipeline.dispatch import GPU_LIMIT

INFRA = ROOT / "infra"
KINDS = ["process", "docker", "kubernetes"]
SECRETS = {"POSTGRES_PASSWORD", "PREFECT_API_AUTH_STRING", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
MANIFESTS = [
    document
    for name in yaml.safe_load((INFRA / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    for document in yaml.safe_load_all((INFRA / "kubernetes" / name).read_text())
]
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())


def rendered(kind: str, **values: Any) -> dict[str, Any]:
    """Fill a job template in as a worker does: with the defaults of its variables, then with given values."""
    template = job_template(kind)
    defaults = {name: variable["default"] for name, variable in template["variables"]["properties"].items()}
    result: dict[str, Any] = apply_values(template["job_configuration"], {**defaults, **values})
    return result


def pod_specs() -> list[dict[str, Any]]:
    """Return the pod of each manifest, and that of the jobs of the GPU pool."""
    return [
        m["spec"]["template"]["spec"]
        for m in [*MANIFESTS, rendered("kubernetes")["job_manifest"]]
        if "template" in m.get("spec", {})
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_takes_the_job_template(kind: str) -> None:
    WorkPoolCreate(name="pool", type=kind, base_job_template=job_template(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_flow_runs_send_heartbeats_and_write_no_pickle(kind: str) -> None:
    job = rendered(kind)
    env = job["env"]
    if kind == "kubernetes":
        container = job["job_manifest"]["spec"]["template"]["spec"]["containers"][0]
        env = {item["name"]: item.get("value") for item in container["env"]}
    assert env["PREFECT_RESULTS_DEFAULT_SERIALIZER"] == "json"
    assert 2 * int(env["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) < SILENCE.total_seconds()


def test_the_automations_are_for_all_our_flows_and_no_others() -> None:
    ours = {item["entrypoint"] for item in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
    assert {load_flow_from_entrypoint(entrypoint).name for entrypoint in ours} == set(FLOWS)
    for automation in automations(timedelta(minutes=5)):
        related = automation.trigger.match_related.model_dump()  # type: ignore[union-attr]
        assert related["prefect.resource.name"] == list(FLOWS)


def test_a_secret_block_in_a_job_template_is_resolved_by_the_worker(prefect_harness: None) -> None:
    Secret(value="planted").save("s3-key", overwrite=True)  # type: ignore[arg-type]
    template = job_template("process")
    template["job_configuration"]["env"]["AWS_SECRET_ACCESS_KEY"] = "{{ prefect.blocks.secret.s3-key }}"

    async def resolve() -> ProcessJobConfiguration:
        return await ProcessJobConfiguration.from_template_and_values(base_job_template=template, values={})

    assert asyncio.run(resolve()).env["AWS_SECRET_ACCESS_KEY"] == "planted"


def test_processes_die_with_their_worker() -> None:
    job = ProcessJobConfiguration(**rendered("process"))
    job.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="run"))
    assert job.command == "setpriv --pdeathsig KILL python -m prefect.engine"
    assert job.working_dir == ROOT
    assert job.env["PREFECT_RESULTS_DEFAULT_SERIALIZER"] == "json"


def test_pipelines_see_no_gpu() -> None:
    assert job_template("process", 0)["job_configuration"]["env"]["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in job_template("process", 1)["job_configuration"]["env"]


def set_up() -> tuple[int, dict[str, int | None], dict[str, int]]:
    """Return what a server has: slots of the limit, runs at once of each pool, GPUs of each pool's workers."""
    with get_client(sync_client=True) as client:
        pools = {name: client.read_work_pool(name) for name in (CPU_POOL, GPU_POOL)}
    runs = {name: pool.concurrency_limit for name, pool in pools.items()}
    variables = {name: pool.base_job_template["variables"]["properties"] for name, pool in pools.items()}

    async def limit() -> int:
        async with get_client() as client:
            return (await client.read_global_concurrency_limit_by_name(GPU_LIMIT)).limit

    return asyncio.run(limit()), runs, {name: own["gpus"]["default"] for name, own in variables.items()}


def test_a_server_is_set_up_for_workers_of_several_gpus(prefect_harness: None) -> None:
    asyncio.run(apply(8, gpus_per_worker=2))
    assert set_up() == (8, {CPU_POOL: PIPELINES, GPU_POOL: 4}, {CPU_POOL: 0, GPU_POOL: 2})
    asyncio.run(apply(4))
    assert set_up() == (4, {CPU_POOL: PIPELINES, GPU_POOL: 4}, {CPU_POOL: 0, GPU_POOL: 1})


def test_gpus_that_would_be_left_over_are_refused() -> None:
    with pytest.raises(ValueError, match="--gpus 8 must be a multiple of --gpus-per-worker 3"):
        asyncio.run(apply(8, gpus_per_worker=3))


@pytest.mark.parametrize(
    ("found", "each", "expected"), [(4, "2", (4, 2)), (4, "", (4, 4)), (0, "", (1, 1)), (0, "2", (2, 1))]
)
def test_workers_share_the_gpus(found: int, each: str, expected: tuple[int, int], monkeypatch: Any) -> None:
    monkeypatch.setenv("RSDPO_GPUS_PER_WORKER", each)
    gpus = share_gpus(found)
    assert (gpus.total, gpus.workers) == expected


@pytest.mark.parametrize("each", ["3", "0", "two"])
def test_workers_that_cannot_share_the_gpus_are_refused(each: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSDPO_GPUS_PER_WORKER", each)
    with pytest.raises(ValueError, match=f"RSDPO_GPUS_PER_WORKER = '{each}' must be"):
        share_gpus(4)


def test_containers_get_the_gpus() -> None:
    options = rendered("docker")["container_create_kwargs"]
    host = HostConfig("1.44", **options)
    assert host["DeviceRequests"][0]["Driver"] == "nvidia"
    assert host["DeviceRequests"][0]["Capabilities"] == [["gpu"]]
    assert host["ShmSize"] == 16 * 2**30


def test_kubernetes_jobs_fit_the_schema_and_get_the_gpus() -> None:
    manifest = rendered("kubernetes", gpus=4)["job_manifest"]
    pods = job_template("kubernetes", 2)["variables"]["properties"]["gpus"]
    assert pods["default"] == 2
    pod = manifest["spec"]["template"]["spec"]
    del pod["completions"], pod["parallelism"]  # prefect-kubernetes wants them where Kubernetes does not know them
    kubernetes_validate.validate(manifest, "1.31", strict=True)
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 4


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda m: f"{m['kind']}-{m['metadata']['name']}")
def test_manifests_fit_the_schema(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.31", strict=True)
    assert manifest["kind"] != "Secret"


def test_pods_are_unprivileged_and_bounded() -> None:
    pods = pod_specs()
    assert len(pods) == 6
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


def test_pods_get_secrets_by_reference() -> None:
    variables = [v for pod in pod_specs() for container in pod["containers"] for v in container.get("env", [])]
    secret = [v for v in variables if v["name"] in SECRETS or v["name"].endswith(("_PASSWORD", "_AUTH_STRING"))]
    assert len(secret) > 8
    assert all(v["valueFrom"]["secretKeyRef"]["name"] == "rs-dpo" for v in secret)


def test_compose_fits_its_specification() -> None:
    spec = PyCompose.from_json(json.dumps(COMPOSE)).to_spec()
    assert set(spec.services or {}) == {"postgres", "server", "s3", "setup", "cpu-worker", "gpu-worker-0"}


def test_compose_publishes_on_loopback_and_holds_no_secret() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    given = set(re.findall(r"^(\w+)=", (INFRA / "compose.env.example").read_text(), re.M))
    used = set(re.findall(r"\$\{(\w+):", (INFRA / "compose.yaml").read_text()))
    assert used == given >= SECRETS
    for service in COMPOSE["services"].values():
        assert all("${" in service["environment"].get(name, "${") for name in SECRETS)


def test_compose_reserves_a_gpu() -> None:
    worker = COMPOSE["services"]["gpu-worker-0"]
    devices = worker["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}]
    assert "--limit" in worker["command"]


def test_the_image_is_linted_and_unprivileged() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    lint = subprocess.run([hadolint, INFRA / "Dockerfile"], capture_output=True, text=True)
    assert lint.stdout == ""
    lines = (INFRA / "Dockerfile").read_text().splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("FROM")] == ["base", "cpu", "cuda"]
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000"]
