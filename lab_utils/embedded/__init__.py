"""Clusters whose nodes are Linux namespaces on this machine.

operations   up, reset, down, …: the visible list of steps
state        what was made, written down before it is made
node         one node: its folder, its boot, commands in it      boot.sh  what happens before systemd
network      the switch, the links, the way out                  cgroups  v1, hybrid and v2
kubeadm      what kubeadm is told (pure)                         gate     when a cluster is up
pristine     what `reset` goes back to                           privileged  the other side of sudo
forward      past a firewall of the host's                       borrowed  what is changed on the host, and given back
guard        a user namespace around a node
"""
