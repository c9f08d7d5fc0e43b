"""The lines of rabbitmq-env.conf by which nodes, and the tools on their hosts, speak TLS. For Python 3.9 and later."""

from __future__ import annotations

import re
from pathlib import Path

OPTIONS = Path("/etc/rabbitmq/roboshop-nodes-tls.config")

# rabbitmq.com, "Securing Cluster (Inter-node) and CLI Tool Communication with TLS", strategy two. The path depends on
# the version of Erlang, so the shell that reads the file looks for it. Either end gives a connection 7 s to come about
# by default, which a tool that has just started exceeds on a busy host: 4 of 6 calls at a load of 14 on two cores.
_LINES = f"""# BEGIN TLS between nodes. Written by the role rabbitmq.
ERL_SSL_PATH=$(echo /usr/lib*/erlang/lib/ssl-*/ebin)
SERVER_ADDITIONAL_ERL_ARGS="-pa $ERL_SSL_PATH -proto_dist inet_tls -ssl_dist_optfile {OPTIONS} -kernel net_setuptime 30"
RABBITMQ_CTL_ERL_ARGS="$SERVER_ADDITIONAL_ERL_ARGS"
# END TLS between nodes.
"""
_BLOCK = re.compile(r"^# BEGIN TLS between nodes\..*?^# END TLS between nodes\.\n?", re.MULTILINE | re.DOTALL)


def with_tls(text: str) -> str:
    """Return the file's text with the lines that turn TLS on, at its end."""
    rest = without_tls(text).rstrip("\n")
    return f"{rest}\n\n{_LINES}" if rest else _LINES


def without_tls(text: str) -> str:
    """Return the file's text without them."""
    if not _BLOCK.search(text):
        return text
    rest = _BLOCK.sub("", text).rstrip("\n")
    return f"{rest}\n" if rest else ""
