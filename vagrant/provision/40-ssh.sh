#!/bin/bash
# sshd for `lab ssh`: keys only, quick to answer. Keys and authorized keys are made per cluster, not here.
set -euo pipefail
mkdir -p /etc/ssh/sshd_config.d /root/.ssh
chmod 700 /root/.ssh
cat > /etc/ssh/sshd_config.d/kio.conf <<'END'
PasswordAuthentication no
PermitRootLogin prohibit-password
UseDNS no
END
systemctl enable ssh.service
