"""The parts of the vagrant provider: nodes are virtual machines, kept by Vagrant in VirtualBox, libvirt, VMware or Parallels.

settings     one file for Vagrant and for us: sizes, boxes, network         (pure)
says         what `vagrant --machine-readable` says, and what it means      (pure)
hypervisors  which of Vagrant's providers can run here, and which is meant
machines     the machines of one cluster, by the command `vagrant`
leftovers    what Vagrant itself forgets when it was killed, or never removes
bootstrap    kubeadm on the machines, by ssh
"""
