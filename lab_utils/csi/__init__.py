"""A CSI driver in Python, and what Kubernetes needs beside it. Everything here but `deploy` and `recording` runs in Pods.

    protocol    the Container Storage Interface: messages, servers, calls
    driver      the driver: Identity, Controller and Node
    disks       what it works with: files that are disks, and where they are mounted
    registrar   tells the kubelet about the driver           (in the role of node-driver-registrar)
    attacher    attaches volumes to nodes                    (in the role of external-attacher)
    deploy      the objects that bring all of this onto a cluster
    recording   what the driver's log says: who called what, when

The files reach Pods through a ConfigMap, as the package `csi`; so they import nothing but each other, the standard library, and the
Debian packages of the image `docker.io/kio/csi`.
"""
