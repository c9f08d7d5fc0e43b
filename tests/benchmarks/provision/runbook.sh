#!/bin/bash
# Usage: bash runbook.sh AMQP_HOST PASSWORD ARTIFACT SSH_OPTIONS -- PORT…
# The manual runbook as one script, as fast as it can be: all hosts in parallel, one connection each. It repeats every step
# in every run, and proves nothing.
set -eu
amqp_host=$1 password=$2 artifact=$3 ssh=$4
shift 5

provision() {
  {
    cat << EOF
set -eu
exec > /dev/null
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -qq --no-install-recommends python3.11-venv unzip
id roboshop > /dev/null 2>&1 || useradd --system --home-dir /app --shell /usr/sbin/nologin roboshop
mkdir -p /app
base64 -d > /tmp/dispatch.zip << 'ARTIFACT'
EOF
    base64 "$artifact"
    cat << EOF
ARTIFACT
cd /app
unzip -q -o /tmp/dispatch.zip
[ -d venv ] || python3.11 -m venv venv
venv/bin/python -m pip install --quiet --no-index --find-links wheels --requirement requirements.txt
cat > /etc/systemd/system/dispatch.service << 'UNIT'
[Unit]
Description=Dispatch Service
[Service]
User=roboshop
WorkingDirectory=/app
StateDirectory=dispatch
Environment=AMQP_HOST=$amqp_host
Environment=AMQP_USER=roboshop
Environment=AMQP_PASS=$password
ExecStart=/app/venv/bin/python -m dispatch_app run
SyslogIdentifier=dispatch
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --quiet dispatch
systemctl restart dispatch
EOF
  } | $ssh -p "$1" ec2-user@127.0.0.1 sudo bash -s
}

pids=()
for port; do
  provision "$port" &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done
