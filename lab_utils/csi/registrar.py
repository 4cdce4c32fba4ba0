"""Tells the kubelet of a driver, in the role of the official node-driver-registrar.

The kubelet watches the folder plugins_registry. When a socket appears there, it is the kubelet that calls: who are you, and where do
you answer? Then it calls the driver itself, NodeGetInfo, and writes what it learns into the Node's CSINode object.
"""

from __future__ import annotations

import os
from pathlib import Path

from .protocol import Message, call, serve


class Registration:
    def __init__(self, name: str, endpoint: str) -> None:
        self.name, self.endpoint = name, endpoint

    def GetInfo(self, request: Message) -> dict[str, object]:
        return {"type": "CSIPlugin", "name": self.name, "endpoint": self.endpoint, "supported_versions": ["1.0.0"]}

    def NotifyRegistrationStatus(self, request: Message) -> None:
        print(request.error or f"the kubelet knows {self.name}", flush=True)
        if request.error:
            os._exit(1)  # Kubernetes starts us again, and the kubelet sees a new socket
        Path("/tmp/registered").touch()  # asked for by our startup probe


def main() -> None:
    driver, registry = Path(os.environ["SOCKETS"]) / "registrar.sock", Path(os.environ["REGISTRY"])
    name = call(driver, "Identity/GetPluginInfo", timeout=300)["name"]
    endpoint = os.environ["ENDPOINT"]  # the driver's socket, as the kubelet sees it
    server = serve(registry / f"{name}-reg.sock", Registration(name, endpoint), door="kubelet")
    server.wait_for_termination()


if __name__ == "__main__":
    main()
