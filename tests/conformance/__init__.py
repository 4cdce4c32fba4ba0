"""Kubernetes' own end-to-end tests, run on a cluster of ours: see README.md for what passed and when."""
