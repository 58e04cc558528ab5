"""deploy/kubernetes: valid objects, and every flag, port, path and metric in them is the program's."""
import copy
import json
import os
import re
import subprocess
import sys

import jsonschema
import kubernetes_validate
import pytest
import yaml

from harness import MODES, ROOT, Server, eventually, http, run_cli
from prometheus_server import Prometheus, load_yaml, metric_names, rules

FOLDER = os.path.join(ROOT, "deploy/kubernetes")
SCHEMAS = os.path.join(ROOT, "tests/e2e/crds")
KUBECTL = os.path.join(os.path.dirname(sys.executable), "kubectl")
KUBERNETES = "1.34"  # the oldest whose preStop `sleep` is stable
# Schemas of custom resources, each of which says what it was made of.
CRDS = {"InferencePool": "inference_pool.json", "PrometheusRule": "prometheus_rule.json",
        "ServiceMonitor": "service_monitor.json"}
OVERLAYS = ("cpu", "gpu")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The objects of each overlay, by kind and name."""
    # kustomize reads no links, which is what a sandbox's files are.
    folder = str(tmp_path_factory.mktemp("kubernetes"))
    subprocess.run(["cp", "-rL", FOLDER, folder], check=True)
    out = {}
    for overlay in OVERLAYS:
        result = subprocess.run(
            [KUBECTL, "kustomize", f"{folder}/kubernetes/overlays/{overlay}"],
            capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
        assert "warning" not in result.stderr.lower(), result.stderr
        out[overlay] = {(o["kind"], o["metadata"]["name"]): o
                        for o in yaml.safe_load_all(result.stdout)}
    return out


@pytest.fixture(params=OVERLAYS)
def objects(built, request):
    return built[request.param]


def schema_of(kind):
    with open(os.path.join(SCHEMAS, CRDS[kind]), encoding="utf-8") as file:
        return json.load(file)


def validate(thing):
    if thing["kind"] in CRDS:
        jsonschema.validate(thing, schema_of(thing["kind"]),
                            cls=jsonschema.Draft202012Validator)
    else:
        kubernetes_validate.validate(thing, KUBERNETES, strict=True)


def of_kind(objects, kind):
    """The one object of a kind."""
    [thing] = [thing for (its, _), thing in objects.items() if its == kind]
    return thing


def pod(objects):
    return of_kind(objects, "Deployment")["spec"]["template"]


def container(objects):
    [one] = pod(objects)["spec"]["containers"]
    return one


def variables(objects):
    return {entry["name"]: entry["value"] for entry in container(objects)["env"]}


def configuration(objects):
    """The text of the configuration file."""
    return of_kind(objects, "ConfigMap")["data"]["sirocco.yaml"]


def ports(objects):
    """The container's ports by name."""
    return {port["name"]: port["containerPort"] for port in container(objects)["ports"]}


def seconds(text):
    match = re.fullmatch(r"(\d+)(s|m)", text)
    return int(match[1]) * {"s": 1, "m": 60}[match[2]]


class TestObjects:
    def test_each_is_valid(self, objects):
        assert {kind for kind, _ in objects} == {
            "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "InferencePool", "NetworkPolicy",
            "PersistentVolumeClaim", "PodDisruptionBudget", "PrometheusRule", "Service",
            "ServiceAccount", "ServiceMonitor"}
        for thing in objects.values():
            validate(thing)

    @pytest.mark.parametrize("kind, path", [
        ("Deployment", ("spec", "template", "spec", "terminationGraceSeconds")),
        ("HorizontalPodAutoscaler", ("spec", "minimum")),
        ("InferencePool", ("spec", "endpointPickerRef", "portNumber")),
        ("NetworkPolicy", ("spec", "ingres")),
        ("PodDisruptionBudget", ("spec", "maxUnavailables")),
        ("PrometheusRule", ("metadata", "label")),
        ("PrometheusRule", ("spec", "groups", 0, "rule")),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "expression")),
        ("ServiceMonitor", ("spec", "endpoint")),
        ("ServiceMonitor", ("spec", "endpoints", 0, "timeout")),
    ])
    def test_a_wrong_name_would_be_found(self, built, kind, path):
        self.refused(built, kind, path, 1)

    @pytest.mark.parametrize("kind, path, value", [
        ("InferencePool", ("spec", "appProtocol"), "grpc"),
        ("InferencePool", ("spec", "targetPorts"), [{"number": 50051}, {"number": 50051}]),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "for"), "five minutes"),
        ("ServiceMonitor", ("spec", "endpoints", 0, "interval"), "15 s"),
        ("ServiceMonitor", ("spec", "selector", "matchLabels"), ["sirocco"]),
    ])
    def test_a_wrong_value_would_be_found(self, built, kind, path, value):
        self.refused(built, kind, path, value)

    def refused(self, built, kind, path, value):
        thing = copy.deepcopy(built["gpu"][kind, "sirocco"])
        holder = thing
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
            validate(thing)

    def test_the_rules_are_those_of_prometheus(self, objects):
        """One source: deploy/prometheus, whose rules its own tests run."""
        subprocess.run([sys.executable, os.path.join(ROOT, "deploy/prometheus/operator.py"),
                        "--check"], check=True, timeout=60)
        groups = of_kind(objects, "PrometheusRule")["spec"]["groups"]
        # kustomize breaks long lines elsewhere.
        have = [rule for group in groups for rule in group["rules"]]
        assert [rule | {"expr": rule["expr"].split()} for rule in have] \
            == [rule | {"expr": rule["expr"].split()} for rule in rules()]
        names = [group["name"] for group in groups]
        assert len(set(names)) == len(names) > 3

    def test_selectors_find_the_pods(self, objects):
        labels = pod(objects)["metadata"]["labels"]
        monitored = of_kind(objects, "ServiceMonitor")["spec"]
        selectors = [
            of_kind(objects, "Deployment")["spec"]["selector"]["matchLabels"],
            of_kind(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            objects["NetworkPolicy", "sirocco"]["spec"]["podSelector"]["matchLabels"],
            objects["NetworkPolicy", "sirocco-picker"]["spec"]["podSelector"]["matchLabels"],
            of_kind(objects, "InferencePool")["spec"]["selector"]["matchLabels"],
        ]
        for (kind, _), thing in objects.items():
            if kind == "Service":
                selectors.append(thing["spec"]["selector"])
                service = thing["metadata"]["labels"]
                assert monitored["selector"]["matchLabels"].items() <= service.items()
                # What Prometheus calls the job, and rules and dashboard expect.
                assert service[monitored["jobLabel"]] == "sirocco"
        assert len(selectors) == 7
        for selector in selectors:
            assert selector and selector.items() <= labels.items()

    def test_ports_are_named_alike_everywhere(self, objects):
        have = ports(objects)
        assert set(have) == {"grpc", "metrics"}
        services = {}
        for (kind, name), thing in objects.items():
            if kind == "Service":
                services[name] = {port["name"] for port in thing["spec"]["ports"]}
                for port in thing["spec"]["ports"]:
                    assert port["targetPort"] == port["name"] and port["port"] == have[port["name"]]
        assert services == {"sirocco": {"grpc", "metrics"}, "sirocco-headless": {"grpc"}}
        assert objects["Service", "sirocco-headless"]["spec"]["clusterIP"] == "None"
        for policy, let_in in (("sirocco", {"grpc", "metrics"}), ("sirocco-picker", {"metrics"})):
            rules = objects["NetworkPolicy", policy]["spec"]["ingress"]
            assert {port["port"] for rule in rules for port in rule["ports"]} == let_in
        [endpoint] = of_kind(objects, "ServiceMonitor")["spec"]["endpoints"]
        assert endpoint["port"] == "metrics"
        assert of_kind(objects, "InferencePool")["spec"]["targetPorts"] == [
            {"number": have["grpc"]}]

    def test_the_grace_period_has_room_for_a_drain(self, objects):
        spec = pod(objects)["spec"]
        drain = seconds(yaml.safe_load(configuration(objects))["drain_timeout"])
        before = container(objects)["lifecycle"]["preStop"]["sleep"]["seconds"]
        after = 2 + 5  # the last writes, the last step (server/commands/serve.cc)
        assert before + drain + after < spec["terminationGracePeriodSeconds"]
        # By then every proxy has looked at the readiness of a pod that leaves.
        probe = container(objects)["readinessProbe"]
        assert before >= 2 * probe["periodSeconds"] * probe["failureThreshold"]

    def test_it_may_do_nothing_that_it_need_not(self, objects):
        spec, one = pod(objects)["spec"], container(objects)
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
        assert not spec["automountServiceAccountToken"]
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]}}
        assert all(mount.get("readOnly") for mount in one["volumeMounts"]
                   if mount["name"] != "tmp")

    def test_resources(self, built):
        gpu = container(built["gpu"])["resources"]
        assert gpu["limits"]["nvidia.com/gpu"] == "1"
        assert variables(built["gpu"])["SIROCCO_BACKEND"] == "cuda"
        limits = container(built["cpu"])["resources"]["limits"]
        env = variables(built["cpu"])
        assert (env["SIROCCO_BACKEND"], env["SIROCCO_THREADS"]) == ("cpu", limits["cpu"])
        kv = int(env["SIROCCO_KV_CACHE_MEMORY"].removesuffix("GiB"))
        assert kv < int(limits["memory"].removesuffix("Gi"))


class TestTheProgram:
    def test_flags_and_variables_are_its_own(self, objects):
        help_text = run_cli("serve", "--help").stdout
        flags = set(re.findall(r"^ *(--[a-z-]+)", help_text, re.MULTILINE))
        command, *args = container(objects)["args"]
        assert command == "serve"
        assert {arg.partition("=")[0] for arg in args} <= flags
        env = variables(objects)
        for name in env:
            if name.startswith("SIROCCO_"):
                assert "--" + name.removeprefix("SIROCCO_").lower().replace("_", "-") in flags
            else:
                assert name in ("CUDA_CACHE_PATH", "EOLE_TORCH_COMPILE", "EOLE_COMPILE_MODE")
        assert (env["EOLE_TORCH_COMPILE"], env["EOLE_COMPILE_MODE"]) == MODES["decoder_graph"]

    def test_the_configuration_holds(self, objects, bare, tmp_path):
        file = tmp_path / "sirocco.yaml"
        file.write_text(configuration(objects))
        # It is mounted where the flag looks for it.
        [flag] = container(objects)["args"][1:]
        mounts = {mount["name"]: mount["mountPath"] for mount in container(objects)["volumeMounts"]}
        assert flag == f"--config={mounts['config']}/sirocco.yaml"
        result = run_cli("check-config", "--config", file, "--model", bare, "--backend",
                         "cpu", mode=None, env=variables(objects))
        assert result.returncode == 0, result.stderr
        effective = yaml.safe_load(result.stdout)
        assert effective["listen"] == f"0.0.0.0:{ports(objects)['grpc']}"
        assert effective["metrics_listen"] == f"0.0.0.0:{ports(objects)['metrics']}"
        assert yaml.safe_load(configuration(objects))["model"].startswith(mounts["model"] + "/")
        assert effective["max_batch_size"] == int(variables(objects)["SIROCCO_MAX_BATCH_SIZE"])


@pytest.fixture(scope="module")
def running(built, smollm2, tmp_path_factory):
    """A server with the cpu overlay's configuration and variables; its model, places and memory are
    this machine's."""
    file = tmp_path_factory.mktemp("running") / "sirocco.yaml"
    file.write_text(configuration(built["cpu"]))
    with Server(smollm2, "--config", file, "--kv-cache-memory", "64MiB", "--threads", 2,
                "--max-length", 512, mode=None, env=variables(built["cpu"])) as server:
        yield server


class TestARunningServer:
    def test_it_is_what_the_variables_say(self, running):
        model = running.get_model()
        assert (model.mode, model.backend, model.max_batch_size) == ("decoder_graph", "cpu", 16)
        assert "ready" in [json.loads(line)["message"] for line in running.stderr().splitlines()]

    def test_probes_and_scrapes_ask_for_pages_that_are_there(self, running, objects):
        paths = {container(objects)[probe]["httpGet"]["path"]
                 for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container(objects)[probe]["httpGet"]["port"] == "metrics"
        [endpoint] = of_kind(objects, "ServiceMonitor")["spec"]["endpoints"]
        for path in (*paths, endpoint["path"]):
            assert http(f"http://{running.metrics_address}{path}")[0] == 200, path
        assert http(f"http://{running.metrics_address}/another")[0] == 404

    def test_the_autoscaler_gets_its_metrics(self, running, objects, tmp_path):
        """The adapter's rules, filled in as it does, against a real Prometheus."""
        rules = load_yaml(os.path.join(FOLDER, "prometheus-adapter.yaml"))["rules"]["custom"]
        wanted = [metric["pods"]["metric"]["name"]
                  for metric in of_kind(objects, "HorizontalPodAutoscaler")["spec"]["metrics"]]
        assert wanted == [rule["name"]["as"] for rule in rules]
        labels = {"namespace": "default", "pod": "sirocco-0"}
        with Prometheus([running.metrics_address], str(tmp_path), labels=labels) as prometheus:
            eventually(lambda: prometheus.query("sirocco_build_info"), what="a scrape")
            for rule in rules:
                [name] = metric_names(rule["seriesQuery"])
                assert prometheus.query(rule["seriesQuery"]), rule["seriesQuery"]
                query = rule["metricsQuery"]
                for field, value in (("<<.Series>>", name), ("<<.GroupBy>>", "pod"),
                                     ("<<.LabelMatchers>>",
                                      ",".join(f'{k}="{v}"' for k, v in labels.items()))):
                    query = query.replace(field, value)
                assert "<<" not in query
                [sample] = prometheus.query(query)
                assert sample["metric"] == {"pod": "sirocco-0"}
                assert set(rule["resources"]["overrides"]) == set(labels)

    @pytest.mark.parametrize("page", sorted(os.listdir(os.path.join(ROOT, "deploy/docs"))))
    def test_the_pages_name_what_there_is(self, running, page):
        """Metrics, keys, flags and files in deploy/docs."""
        with open(os.path.join(ROOT, "deploy/docs", page), encoding="utf-8") as file:
            text = file.read()
        have = {name for name, _ in running.metrics().samples}
        assert metric_names(text) <= have
        flags = set(re.findall(r"^  (--[a-z-]+)", run_cli("serve", "--help").stdout, re.MULTILINE))
        keys = {flag.removeprefix("--").replace("-", "_") for flag in flags}
        # kubectl's, deploy/install's.
        assert set(re.findall(r"(?<!\S)`?(--[a-z-]+)", text)) <= flags | {"--previous", "--cuda"}
        quoted = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text))
        # What is no key is a metric, a field of usage or a reason of a refusal.
        others = {"cached_prompt_tokens", "completion_tokens", "max_new_tokens", "queue_full",
                  "queue_tokens", "request_id"}
        assert quoted - have - others <= keys
        for link in re.findall(r"\]\(([^)#]+)", text):
            assert os.path.exists(os.path.join(ROOT, "deploy/docs", link)), link

    def test_a_gateway_finds_the_names_it_looks_for(self, running):
        metrics = running.metrics()
        for name in ("vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"):
            assert metrics(name) == 0
