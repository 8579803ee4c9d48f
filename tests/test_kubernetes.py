"""The manifests of deploy/k8s: right by Kubernetes' schemas, and right about each other and us."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import kubernetes_validate
import pytest
import yaml

from service.config import Settings
from service.security.scopes import ROUTES
from tests.programs import program

ROOT = Path(__file__).parents[1]
K8S = ROOT / "deploy" / "k8s"
FOLDERS = sorted(path.parent for path in K8S.rglob("kustomization.yaml"))
OVERLAYS = ("try", "production")
VERSIONS = ("1.30", "1.37")
KUSTOMIZE_KINDS = {"Kustomization", "Component"}
# Of the Prometheus operator, whose schemas are not Kubernetes' own.
MONITORS = {"ServiceMonitor", "PodMonitor"}
SETTINGS = {f"SOJOURN_{name.upper()}" for name in Settings.model_fields} | {"SOJOURN_BUNDLE"}

Document: TypeAlias = dict[str, Any]


def documents(path: Path) -> list[Document]:
    """Return the documents of a file."""
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def sources() -> list[Document]:
    """Return every object of the base and the components, patches apart."""
    listed = [
        folder / name
        for folder in FOLDERS
        for name in documents(folder / "kustomization.yaml")[0].get("resources", ())
        if name.endswith(".yaml")
    ]
    return [document for path in listed for document in documents(path)]


def of_kind(objects: list[Document], *kinds: str) -> list[Document]:
    """Return the objects of these kinds."""
    return [one for one in objects if one["kind"] in kinds]


def named(objects: list[Document], kind: str, name: str) -> Document:
    """Return the one object of a kind and name."""
    [found] = [one for one in of_kind(objects, kind) if one["metadata"]["name"] == name]
    return found


def templates(objects: list[Document]) -> list[Document]:
    """Return what pods are made of."""
    return [one["spec"]["template"] for one in of_kind(objects, "Deployment", "StatefulSet")]


def containers(objects: list[Document]) -> Iterator[Document]:
    """Yield every container."""
    for template in templates(objects):
        yield from template["spec"].get("initContainers", ())
        yield from template["spec"]["containers"]


def chosen_by(labels: dict[str, str], objects: list[Document]) -> list[Document]:
    """Return the pod templates that have these labels."""
    return [
        one for one in templates(objects) if labels.items() <= one["metadata"]["labels"].items()
    ]


def rendered(folder: Path) -> list[Document]:
    """Return what an overlay makes, by the kustomize in kubectl."""
    command = [program("kubectl"), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def check_schemas(objects: list[Document]) -> None:
    """Hold each object against the schemas of the oldest and the newest version, strictly."""
    for one in objects:
        if one["kind"] not in MONITORS:
            for version in VERSIONS:
                kubernetes_validate.validate(one, version, strict=True)


def test_every_object_is_right_by_kubernetes_schemas() -> None:
    """A misspelt field would be left out by the server, or refuse the rollout."""
    objects = sources()
    assert len(objects) >= 13
    check_schemas(objects)


def test_the_schemas_refuse_a_misspelt_field() -> None:
    """The check above is worth what its strictness is."""
    wrong = named(sources(), "Deployment", "sojourn")
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        check_schemas([wrong])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.relative_to(K8S).as_posix())
def test_a_kustomization_lists_every_file_beside_it_and_no_other(folder: Path) -> None:
    """A file that is not listed is never applied; one that is missing stops everything."""
    [document] = documents(folder / "kustomization.yaml")
    assert document["kind"] in KUSTOMIZE_KINDS
    patches = [patch["path"] for patch in document.get("patches", ()) if "path" in patch]
    envs = [env for made in document.get("configMapGenerator", ()) for env in made.get("envs", ())]
    listed = document.get("resources", []) + document.get("components", []) + patches + envs
    files = {name for name in listed if not (folder / name).is_dir()}
    assert files == {path.name for path in folder.iterdir() if path.is_file()} - {
        "kustomization.yaml"
    }
    for name in set(listed) - files:
        assert (folder / name / "kustomization.yaml").is_file()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_renders_to_right_objects_whose_references_are_there(overlay: str) -> None:
    """Generated names have hashes, and every reference has to follow."""
    objects = rendered(K8S / "overlays" / overlay)
    check_schemas(objects)
    assert {one["metadata"]["namespace"] for one in objects} == {"sojourn"}
    settings = {one["metadata"]["name"] for one in of_kind(objects, "ConfigMap")}
    for container in containers(objects):
        for source in container.get("envFrom", ()):
            assert source["configMapRef"]["name"] in settings
        assert not container["image"].startswith("sojourn-service") or overlay == "try"
    secrets = {one["metadata"]["name"] for one in of_kind(objects, "Secret")}
    redis = {
        one["valueFrom"]["secretKeyRef"]["name"]
        for container in containers(objects)
        for one in container.get("env", ())
    }
    # In production it is made beside the manifests, under its plain name.
    assert redis == (secrets if overlay == "try" else {"sojourn-redis"})
    assert bool(secrets) == (overlay == "try")


def test_production_leaves_only_the_managed_redis_besides_dns_and_traces() -> None:
    """The patch replaces by place, so a new rule in between would be found here."""
    for policy in of_kind(rendered(K8S / "overlays" / "production"), "NetworkPolicy"):
        egress = policy["spec"]["egress"]
        ports = [port["port"] for rule in egress for port in rule["ports"]]
        assert ports in ([53, 53, 6379, 4318], [53, 53, 6379])
        assert "ipBlock" in egress[1]["to"][0]


def test_a_bundle_in_an_image_takes_the_place_of_the_volume(tmp_path: Path) -> None:
    """No overlay here uses the component, so the test makes one that does."""
    shutil.copytree(K8S, tmp_path / "k8s")
    folder = tmp_path / "k8s" / "overlays" / "with-image"
    folder.mkdir()
    made = {
        "kind": "Kustomization",
        "resources": ["../try"],
        "components": ["../../components/bundle-image"],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(made), "utf-8")
    objects = rendered(folder)
    check_schemas(objects)
    assert of_kind(objects, "PersistentVolumeClaim") == []
    pod = named(objects, "Deployment", "sojourn")["spec"]["template"]["spec"]
    assert [one["name"] for one in pod["initContainers"]] == ["bundle"]
    [volume] = [one for one in pod["volumes"] if one["name"] == "bundles"]
    assert volume.keys() == {"name", "emptyDir"}


def test_every_setting_that_the_manifests_name_exists() -> None:
    """A variable with a slip of the pen does nothing, silently."""
    texts = [path.read_text("utf-8") for path in K8S.rglob("*") if path.is_file()]
    said = {name for text in texts for name in re.findall(r"SOJOURN_[A-Z_]+[A-Z]", text)}
    assert {"SOJOURN_BUNDLE", "SOJOURN_REDIS_URL", "SOJOURN_KEYS_FILE"} <= said
    assert said - SETTINGS - {"SOJOURN_SHUTDOWN_GRACE"} == set()


def test_ports_and_probes_are_those_of_the_image_and_of_compose() -> None:
    """The image says which port it exposes, compose how it is run; the routes are the service's."""
    objects = sources()
    [service] = named(objects, "Deployment", "sojourn")["spec"]["template"]["spec"]["containers"]
    exposed = re.findall(r"^EXPOSE (\d+)", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert [str(port["containerPort"]) for port in service["ports"]] == exposed
    probes = {
        name: service[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")
    }
    assert [probe["path"] for probe in probes.values()] == ["/readyz", "/livez", "/readyz"]
    assert {probe["port"] for probe in probes.values()} == {service["ports"][0]["name"]}
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    collector = named(objects, "StatefulSet", "sojourn-collector")["spec"]["template"]["spec"]
    assert collector["containers"][0]["args"] == compose["collector"]["command"]
    redis = named(objects, "StatefulSet", "sojourn-redis")["spec"]["template"]["spec"]
    [server] = redis["containers"]
    assert [*server["command"], *server["args"]] == [*compose["redis"]["command"], "--dir", "/data"]
    user = f"{redis['securityContext']['runAsUser']}:{redis['securityContext']['runAsGroup']}"
    assert user == compose["redis"]["user"]


def test_a_pod_has_the_time_that_its_end_takes() -> None:
    """The pause before the signal, the grace of open requests, and a rest."""
    pod = named(sources(), "Deployment", "sojourn")["spec"]["template"]["spec"]
    [pause] = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1:]
    grace = Settings.model_fields["shutdown_grace_s"].default
    assert f"SOJOURN_SHUTDOWN_GRACE_S={grace:.0f}" in (K8S / "base" / "settings.env").read_text()
    assert pod["terminationGracePeriodSeconds"] >= int(pause) + grace + 5


def test_every_container_is_hardened_as_in_compose_and_has_its_resources() -> None:
    """No root, no capabilities, nothing to write to but what is mounted, no token, a pinned tag."""
    objects = sources()
    for template in templates(objects):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
    found = list(containers(objects))
    assert len(found) == 3
    for container in found:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert re.fullmatch(r"[a-z-]+:\d+\.\d+\.\d+(-\w+)?", container["image"])
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
    assert named(objects, "ServiceAccount", "sojourn")["automountServiceAccountToken"] is False


def test_selectors_choose_the_pods_that_they_mean() -> None:
    """One that chooses none looks fine and does nothing; one that chooses two mixes them up."""
    objects = sources()
    for one in of_kind(objects, "Deployment", "StatefulSet"):
        labels = one["spec"]["selector"]["matchLabels"]
        assert chosen_by(labels, objects) == [one["spec"]["template"]]
    for service in of_kind(objects, "Service"):
        [template] = chosen_by(service["spec"]["selector"], objects)
        names = [port["name"] for port in template["spec"]["containers"][0]["ports"]]
        assert [port["targetPort"] for port in service["spec"]["ports"]] == names
    for one in of_kind(objects, "StatefulSet"):
        assert named(objects, "Service", one["spec"]["serviceName"])
    [budget] = of_kind(objects, "PodDisruptionBudget")
    assert len(chosen_by(budget["spec"]["selector"]["matchLabels"], objects)) == 1
    [scaler] = of_kind(objects, "HorizontalPodAutoscaler")
    target = scaler["spec"]["scaleTargetRef"]
    scaled = named(objects, target["kind"], target["name"])
    # Two that say how many there are would take turns.
    assert "replicas" not in scaled["spec"]
    assert scaler["spec"]["minReplicas"] > budget["spec"]["maxUnavailable"]


def test_network_policies_cover_each_pod_and_name_pods_and_ports_that_exist() -> None:
    """Each kind of pod has one, so that no pod is open because its policy chose nobody."""
    objects = sources()
    policies = [one["spec"] for one in of_kind(objects, "NetworkPolicy")]
    covered = [chosen_by(policy["podSelector"]["matchLabels"], objects) for policy in policies]
    assert all(len(pods) == 1 for pods in covered)
    assert sorted(
        pods[0]["metadata"]["labels"]["app.kubernetes.io/component"] for pods in covered
    ) == [
        "collector",
        "redis",
        "service",
    ]
    for policy, [pod] in zip(policies, covered, strict=True):
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        names = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
        for rule in policy["ingress"]:
            assert {port["port"] for port in rule["ports"]} <= names
        for rule in policy["ingress"] + policy.get("egress", []):
            for peer in rule.get("from", []) + rule.get("to", []):
                if "podSelector" in peer:
                    assert len(chosen_by(peer["podSelector"]["matchLabels"], objects)) == 1


def test_monitors_scrape_ports_that_exist() -> None:
    """The operator's own schemas are not here, so their references are checked."""
    objects = sources()
    [by_service] = of_kind(objects, "ServiceMonitor")
    labels = by_service["spec"]["selector"]["matchLabels"].items()
    [service] = [
        one
        for one in of_kind(objects, "Service")
        if labels <= one["metadata"].get("labels", {}).items()
    ]
    assert by_service["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    [by_pod] = of_kind(objects, "PodMonitor")
    [pod] = chosen_by(by_pod["spec"]["selector"]["matchLabels"], objects)
    [port] = pod["spec"]["containers"][0]["ports"]
    assert by_pod["spec"]["podMetricsEndpoints"][0]["port"] == port["name"]


def test_monitors_name_their_jobs_as_the_alerts_do() -> None:
    """The operator's own name for a PodMonitor's job has the namespace in it."""
    alerts = (ROOT / "deploy" / "prometheus" / "rules" / "alerts.yml").read_text("utf-8")
    objects = sources()
    endpoints = [
        *of_kind(objects, "ServiceMonitor")[0]["spec"]["endpoints"],
        *of_kind(objects, "PodMonitor")[0]["spec"]["podMetricsEndpoints"],
    ]
    jobs = [
        rule["replacement"]
        for endpoint in endpoints
        for rule in endpoint.get("relabelings", [])
        if rule["targetLabel"] == "job"
    ]
    assert sorted(jobs) == sorted(set(re.findall(r'job="([^"]+)"', alerts)))


def test_the_key_of_the_monitors_is_said_to_have_a_scope_that_reads_metrics() -> None:
    """A key of a scope that does not exist cannot be made, and one of another is refused."""
    scope = ROUTES["GET", "/metrics"]
    for path in (ROOT / "docs" / "kubernetes.md", K8S / "components/monitoring/monitors.yaml"):
        assert re.findall(r"key with the scope `([\w-]+)`", path.read_text("utf-8")) == [scope]
