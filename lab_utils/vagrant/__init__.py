"""The parts of the vagrant provider: nodes are virtual machines, kept by Vagrant in VirtualBox, libvirt, VMware or Parallels.

settings     one file for Vagrant and for us: sizes, boxes, network         (pure)
says         what `vagrant --machine-readable` says, and what it means      (pure)
hypervisors  which of Vagrant's providers can run here, and which is meant
plan         what is decided before any machine is made
payload      what is sent to a machine that is made from a plain Debian box
machines     the machines of one cluster, by the command `vagrant`
bootstrap    kubeadm on the machines, by ssh
leftovers    what Vagrant itself forgets when it was killed, or never removes
"""
