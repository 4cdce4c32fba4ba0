"""Clusters whose nodes are Docker containers, made by the `kind` command.

settings    what kind is told, and how its names and ours go together (pure)
docker      whether Docker and kind can be used, and what they say of containers
ports       whether ports of this host are free
node        commands and files on one node, by `docker exec`
bootstrap   from kind's bare cluster to one like every other here: Pod network, images, names

All of it goes through the two commands `docker` and `kind`, which know about contexts, Docker Desktop and remote daemons. Nothing
touches the host beside them.
"""
