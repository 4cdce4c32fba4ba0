"""A cluster that is there already.

config    what a kubeconfig says, and what a server's refusal means (pure)
access    the way to its nodes: none, or a privileged Pod on each
objects   what labs made there, and nothing else
"""
