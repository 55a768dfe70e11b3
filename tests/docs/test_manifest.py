"""The Kubernetes manifest of the docs: its parts fit together, and its pods share the directory of the journals."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from page_blocks import ROOT, blocks

pytestmark = pytest.mark.docs


@pytest.fixture
def files() -> dict[str, str]:
    return {block.title: block.text for block in blocks(ROOT / "docs" / "multi-node.md") if block.title}


@pytest.fixture
def manifest(files: dict[str, str]) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(files["job.yaml"])
    return content


def test_each_pod_has_a_rank(manifest: dict[str, Any], files: dict[str, str]) -> None:
    """Only an Indexed Job sets JOB_COMPLETION_INDEX, which `pod.py` reads, and its pods run side by side."""
    assert (manifest["apiVersion"], manifest["kind"]) == ("batch/v1", "Job")
    spec = manifest["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] == spec["completions"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never", "which backoffLimitPerIndex needs"
    assert 'os.environ["JOB_COMPLETION_INDEX"]' in files["pod.py"]


def test_pods_share_the_volume_of_journals(manifest: dict[str, Any]) -> None:
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["python", "pod.py"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    (mount,) = container["volumeMounts"]
    assert "persistentVolumeClaim" in volumes[mount["name"]], "a volume of the pod's own would be lost with it"
    page = (ROOT / "docs" / "multi-node.md").read_text()
    assert f"monitor_dir: {mount['mountPath']}/{manifest['metadata']['name']}" in page
    assert "access mode ReadWriteMany" in page
