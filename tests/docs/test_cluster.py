"""Templates of clusters: what can be checked of them without a cloud."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from tests.experiments.test_results import ROOT

FOLDER = ROOT / "docs" / "cluster"


def test_every_template_says_that_it_was_not_run():
    paths = sorted(FOLDER.glob("*.yaml"))
    assert [x.stem for x in paths] == ["aws", "azure", "gcp", "rayjob"]
    for path in paths:
        assert path.read_text("utf-8").startswith("# NOT RUN: ")
        assert f"[{path.name}]" in (FOLDER / "README.md").read_text("utf-8")
        assert "disabled" not in path.read_text("utf-8")  # a token is wanted everywhere


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_ray_up_files_fit_the_schema_of_ray(cloud):
    """Reads a file of Ray without importing it."""
    jsonschema = pytest.importorskip("jsonschema", reason="comes with pip install '.[ray]'")
    found = importlib.util.find_spec("ray")
    if found is None or found.origin is None:
        pytest.skip("Ray is not installed: pip install '.[ray]'")
    schema = json.loads(
        Path(found.origin).with_name("autoscaler").joinpath("ray-schema.json").read_text()
    )
    tree = yaml.safe_load((FOLDER / f"{cloud}.yaml").read_text("utf-8"))
    jsonschema.validate(tree, schema)
    assert (
        tree["provider"]["type"] == cloud and tree["head_node_type"] in tree["available_node_types"]
    )


def test_the_job_of_kuberay_has_its_parts():
    spec = yaml.safe_load((FOLDER / "rayjob.yaml").read_text("utf-8"))["spec"]
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert "--engine ray --address auto" in spec["entrypoint"]
    for group in groups:
        pod = group["template"]["spec"]
        mounts = {x["name"] for one in pod["containers"] for x in one["volumeMounts"]}
        assert mounts == {x["name"] for x in pod["volumes"]} == {"shared"}
        assert {x["name"] for x in pod["containers"][0]["env"]} >= {"RAY_AUTH_MODE"}
