"""A Deployment's pod with what its names lead to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath
from typing import Any

from tests.deploy.kubernetes.manifests import Manifest


@dataclass(frozen=True, slots=True)
class Pod:
    """The pod of a Deployment. `mounts` has the volume at each path, by the mount's name."""

    labels: Mapping[str, str]
    spec: dict[str, Any]
    container: dict[str, Any]
    mounts: Mapping[str, dict[str, Any]]
    writable: frozenset[str]
    """Paths that the server may write beneath."""
    claims: Mapping[str, str]
    """Volume → claim."""

    def inside(self, path: PurePath) -> PurePosixPath:
        """A path as the server in the container reads it."""
        return PurePosixPath(self.container["workingDir"]) / path.as_posix()

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.container["ports"]}


def resolve_pod(deployment: Manifest) -> Pod:
    """Raises `KeyError` for a mount without a volume."""
    template = deployment["spec"]["template"]
    spec = template["spec"]
    (container,) = spec["containers"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert {volume["name"] for volume in mounts.values()} == set(volumes), "a volume is not mounted"
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    claims = {
        name: volume["persistentVolumeClaim"]["claimName"]
        for name, volume in volumes.items()
        if "persistentVolumeClaim" in volume
    }
    return Pod(
        labels=template["metadata"]["labels"],
        spec=spec,
        container=container,
        mounts=mounts,
        writable=frozenset(writable),
        claims=claims,
    )
