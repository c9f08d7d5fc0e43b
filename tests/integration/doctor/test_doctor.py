"""Each fault the doctor knows, on a real host: it is named first, and the fix that was printed mends it."""

from __future__ import annotations

import base64
import datetime
import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dispatch_app.doctor.checks import CHECKS
from tests.integration.conftest import until
from tests.integration.doctor.doctor_lab import BROKER, MANUAL, PLAIN, TLS, Clinic, boot
from tests.lab.ansible import ROOT
from tests.lab.hosts import put

pytestmark = pytest.mark.long

RELEASE = "$(readlink -f /app/current)"
BIN = f"{RELEASE}/venv/bin"
UNIT = "/etc/systemd/system/dispatch.service"
ALL = "/etc/systemd/system/service.d"
LEDGER = "/var/lib/dispatch/ledger.db"
RESTART = "systemctl restart --no-block dispatch"


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    found = boot(tmp_path_factory.mktemp("doctor"))
    yield found
    found.lab.down(found.client)
    found.client.close()


@dataclass(frozen=True)
class Fault:
    """How to cause a fault on a host, and what to undo afterwards that the fix does not."""

    id: str
    script: str
    host: str = PLAIN
    on: str = ""  # the host the script runs on, if it is another one
    after: str = ""  # a script to run there when the fault is mended
    alone: bool = False  # stops Dispatch on the other hosts meanwhile
    seen: str = ""  # text that the evidence has to contain
    before: str = ""  # put in front of the doctor's command
    python: str = "python3"


def setting(variable: str, value: str) -> str:
    """Change one of the service's settings by hand."""
    file = "/etc/dispatch/environment"
    return f"""sed -i '/^{variable}=/d' {file} && echo '{variable}="{value}"' >> {file}; {RESTART}"""


def in_unit(old: str, new: str) -> str:
    return f"sed -i 's#^{old}.*#{new}#' {UNIT} && systemctl daemon-reload; {RESTART}"


LONG_AGO = "UPDATE dispatched SET dispatched_at = dispatched_at - 600000"  # by ten minutes
MEANWHILE = "mount -t tmpfs -o size=40m small /var/log && mkdir /var/log/ledger && systemctl stop dispatch"
HOOK = "def hook(order): raise RuntimeError('the warehouse is closed')\\n"
SECRET = f"whsec_{base64.b64encode(bytes(32)).decode()}"

FAULTS = [
    Fault("unit-missing", f"systemctl disable --now dispatch; rm {UNIT}; systemctl daemon-reload"),
    Fault("unit-masked", f"systemctl stop dispatch; ln -sf /dev/null {UNIT}; systemctl daemon-reload"),
    Fault("user-missing", "systemctl stop dispatch; userdel roboshop"),
    Fault("user-wrong", in_unit("User=", "User=daemon"), seen="User=daemon"),
    Fault("user-wrong", in_unit("User=", "User=root"), MANUAL),
    Fault("artifact-missing", f"rm -rf {RELEASE}; {RESTART}"),
    Fault("not-readable", f"chmod 700 {RELEASE}; {RESTART}"),
    Fault("not-readable", f"chmod 600 {RELEASE}/dispatch_app/orders.py; {RESTART}", seen="orders.py"),
    Fault("venv-missing", f"rm -rf {RELEASE}/venv; {RESTART}"),
    Fault(
        "runtime-missing",
        f"cp /usr/bin/python3.11 /usr/bin/python-of-the-doctor; rm /usr/bin/python3.11; {RESTART}",
        python="python-of-the-doctor",
    ),
    Fault("executable-missing", f"mv /app/dispatch /app/elsewhere; {RESTART}", MANUAL),
    Fault("not-executable", f"chmod 644 /app/dispatch; {RESTART}", MANUAL),
    Fault(
        "runtime-too-old",
        f"cd {BIN} && rm python && printf '#!/bin/sh\\necho 3 9\\n' > python && chmod 755 python; {RESTART}",
        seen="Python 3.9",
    ),
    Fault("venv-broken", f"cd {BIN} && rm python && echo x > python && chmod 755 python; {RESTART}"),
    Fault("dependency-missing", f"rm -rf {RELEASE}/venv/lib/*/site-packages/pika; {RESTART}", seen="pika"),
    Fault(
        "release-damaged", f"rm {RELEASE}/dispatch_app/orders.py; {RESTART}", seen="name 'orders' from 'dispatch_app'"
    ),
    Fault("address-placeholder", setting("AMQP_HOST", "<RABBITMQ-SERVER-IP-ADDRESS>"), seen="<RABBITMQ"),
    Fault("settings-invalid", setting("AMQP_PORT", "amqp"), seen="AMQP_PORT"),
    Fault("settings-invalid", f"rm /etc/dispatch/credentials/amqp_password; {RESTART}", seen="AMQP_PASS"),
    Fault("unit-not-reloaded", f"touch {UNIT}", MANUAL),
    Fault("unit-edited", in_unit("RestartSec=", "RestartSec=3")),
    Fault(
        "unit-edited",
        f"mkdir -p {UNIT}.d; printf '[Service]\\nLimitNOFILE=4096\\n' > {UNIT}.d/x.conf; "
        f"systemctl daemon-reload; {RESTART}",
        seen="x.conf",
    ),
    Fault(
        "unit-edited",
        f"mkdir -p {ALL}; printf '[Service]\\nOOMPolicy=continue\\nTimeoutStopSec=5\\n' > {ALL}/site.conf; "
        f"systemctl daemon-reload; {RESTART}",
        after=f"rm -r {ALL} {UNIT}.d/site.conf; systemctl daemon-reload",
        seen="site.conf (TimeoutStopSec)",
    ),
    Fault("restart-pending", "echo DISPATCH_PREFETCH=100 >> /etc/dispatch/environment", seen="DISPATCH_PREFETCH"),
    Fault("unit-disabled", "systemctl disable dispatch"),
    Fault("password-readable", "cd /etc/dispatch && chmod 755 credentials && chmod 644 credentials/amqp_password"),
    Fault("password-readable", "true", MANUAL, seen="Environment=AMQP_PASS="),
    Fault(
        "state-linked",
        "systemctl stop dispatch; mv /var/lib/dispatch /var/lib/volume; ln -s /var/lib/volume /var/lib/dispatch; "
        "systemctl start --no-block dispatch",
        after="systemctl stop dispatch; umount /var/lib/dispatch; rmdir /var/lib/dispatch; "
        "mv /var/lib/volume /var/lib/dispatch; sed -i '/volume/d' /etc/fstab; systemctl start dispatch",
    ),
    Fault(
        "state-read-only",
        "systemctl stop dispatch; mount -t tmpfs -o ro small /var/lib/dispatch; systemctl start --no-block dispatch",
        after="systemctl stop dispatch; umount /var/lib/dispatch; systemctl start dispatch",
    ),
    Fault("state-read-only", "chown -R root: /var/lib/dispatch", seen="uid 0"),
    Fault(
        "disk-full",
        f"{MEANWHILE}; mount --bind /var/log/ledger /var/lib/dispatch; head -c 39M /dev/zero > /var/log/app.log.1; "
        "systemctl start --no-block dispatch",
        after="systemctl stop dispatch; umount /var/lib/dispatch; umount /var/log; systemctl start dispatch",
    ),
    Fault(
        "ledger-damaged",
        f"systemctl stop dispatch; dd if=/dev/urandom of={LEDGER} bs=64 count=1 conv=notrunc status=none; {RESTART}",
    ),
    Fault(
        "ledger-locked",
        'systemd-run --quiet --unit=holder python3 -c "import sqlite3, time; '
        f"db = sqlite3.connect('{LEDGER}', isolation_level=None); db.execute('BEGIN IMMEDIATE'); time.sleep(900)\"",
        after="systemctl reset-failed holder 2>/dev/null || true",
        seen="BEGIN IMMEDIATE",
    ),
    Fault("broker-unresolvable", setting("AMQP_HOST", "broker.invalid"), seen="broker.invalid"),
    Fault("broker-unreachable", setting("AMQP_HOST", "255.255.255.255")),
    Fault("broker-refused", "systemctl stop rabbitmq-server", on=BROKER),
    Fault("broker-filtered", "iptables -A INPUT -p tcp --dport 5672 -j DROP", on="network", after="iptables -F INPUT"),
    Fault("address-idle", setting("AMQP_HOST", f"{BROKER},broker.invalid"), seen="broker.invalid"),
    Fault("not-amqp", setting("AMQP_PORT", "15672")),
    Fault("guest-remote", setting("AMQP_USER", "guest")),
    Fault("bad-credentials", "rabbitmqctl change_password roboshop another", on=BROKER),
    Fault("vhost-missing", setting("AMQP_VHOST", "shop"), seen="shop"),
    Fault("permission-missing", "rabbitmqctl clear_permissions roboshop", on=BROKER),
    Fault("permission-missing", "rabbitmqctl set_permissions roboshop '' '' ''", on=BROKER, seen="refused"),
    Fault("service-stopped", "systemctl stop dispatch"),
    Fault(
        "service-failed",
        f"""{setting("DISPATCH_PREFETCH", "many")}; until systemctl is-failed -q dispatch; do sleep .2; done
        sed -i /DISPATCH_PREFETCH/d /etc/dispatch/environment""",
        seen="exit code 78",
    ),
    Fault(
        "crash-loop",
        "sed -i 's/^        properties.install()$/        raise RuntimeError(\"by hand\")/' "
        f"{RELEASE}/dispatch_app/service.py; {RESTART}",
        seen="RuntimeError: by hand",
    ),
    # The lab's kernel kills, and only where systemd has control groups of version 2 it tells why. Such a one says this.
    Fault(
        "out-of-memory",
        """kill -KILL $(systemctl show dispatch -P MainPID)
        until [ $(systemctl show dispatch -P NRestarts) -gt 0 ] && systemctl is-active -q dispatch; do sleep .2; done
        printf "MESSAGE=dispatch.service: Failed with result 'oom-kill'.\\nOBJECT_PID=%s\\n" \\
            $(systemctl show dispatch -P MainPID) | logger --journald && journalctl --sync""",
        seen="result oom-kill",
    ),
    Fault("service-hung", "kill -STOP $(systemctl show dispatch -P MainPID)", seen="/livez"),
    Fault(
        "broker-alarm",
        "rabbitmqctl set_disk_free_limit 10000GB",
        on=BROKER,
        seen="of disk left",
    ),
    Fault("broker-alarm", "rabbitmqctl set_vm_memory_high_watermark 0.0001", on=BROKER, seen="of memory"),
    Fault(
        "events-stuck",
        f"""{setting("DISPATCH_EVENT_EXCHANGE", "robot-shop.events")}
        until curl -fs 127.0.0.1:9672/metrics | grep -q '^dispatch_events_pending 0'; do sleep .2; done
        until dispatch publish; do sleep .2; done
        until curl -fs 127.0.0.1:9672/metrics | grep -q 'unroutable"}} 1'; do sleep .2; done
        python3 -c "import sqlite3; db = sqlite3.connect('{LEDGER}', isolation_level=None, timeout=30)
db.execute('{LONG_AGO}')\"""",
        alone=True,
        seen="unroutable",
    ),
    Fault(
        "hook-broken",
        f"""printf "{HOOK}" > {RELEASE}/closed.py; {setting("DISPATCH_HOOK", "closed:hook")}; systemctl restart dispatch
        rm {RELEASE}/closed.py; pkill -KILL -f '[d]ispatch_app.effects.child'; dispatch publish
        until curl -s 127.0.0.1:9672/readyz | grep "can't be imported"; do sleep .2; done""",
        alone=True,
        seen="can't be imported",
    ),
    Fault(
        "webhook-away",
        f"""{setting("DISPATCH_WEBHOOK_SECRET", SECRET)}; {setting("DISPATCH_WEBHOOK_URL", "http://127.0.0.1:9/")}
        systemctl restart dispatch; dispatch publish --count 8
        until curl -fs 127.0.0.1:9672/metrics | grep -E '^dispatch_effect_held_seconds [6-9][0-9]'; do sleep 1; done""",
        alone=True,
        seen="held for 1 minutes",
    ),
    # The broker gives up the silent consumer after twenty seconds. systemd's watchdog does not watch this program.
    Fault("no-consumer", "systemctl kill -s STOP dispatch", MANUAL, alone=True, seen="has no consumer"),
]


def names() -> list[str]:
    ids = [fault.id for fault in FAULTS]
    return [f"{name}-{ids[:place].count(name) + 1}" for place, name in enumerate(ids)]


@contextmanager
def ward(clinic: Clinic, host: str, alone: bool) -> Iterator[None]:
    """A host that is healthy before the block, and is made healthy after it."""
    others = [name for name in (PLAIN, TLS, MANUAL) if name != host] if alone else []
    for name in others:
        clinic.run(name, "systemctl stop dispatch")
    expect(clinic, host, "password-readable" if host == MANUAL else "healthy")
    try:
        yield
    finally:
        for name in others:
            clinic.run(name, "systemctl start dispatch")


def named(report: dict[str, Any], host: str) -> str:
    """The first finding; on the host set up by hand, the password in the unit is always another one."""
    findings = [finding["id"] for finding in report["findings"]]
    if host == MANUAL and findings[1:] and findings[0] == "password-readable":
        return str(findings[1])
    return str(findings[0]) if findings else "healthy"


def expect(clinic: Clinic, host: str, wanted: str, seen: str = "", seconds: float = 60, python: str = "python3") -> Any:
    """Wait until the doctor names `wanted` first; return that finding."""
    report: dict[str, Any] = {}

    def found() -> bool:
        report.update(clinic.examine(host, python=python))
        return named(report, host) == wanted

    try:
        until(found, seconds)
    except AssertionError:
        pytest.fail(f"the doctor does not name {wanted}: {json.dumps(report, indent=2)[:6000]}")
    finding = next((f for f in report["findings"] if f["id"] == wanted), None)
    assert finding is None or seen in finding["evidence"], finding
    return finding


@pytest.mark.parametrize("fault", FAULTS, ids=names())
def test_a_fault_is_named_first_and_its_fix_mends_it(clinic: Clinic, fault: Fault) -> None:
    healthy = "password-readable" if fault.host == MANUAL else "healthy"
    provisioned = False
    with ward(clinic, fault.host, fault.alone):
        try:
            run_at(clinic, fault, fault.script)
            finding = expect(clinic, fault.host, fault.id, fault.seen, python=fault.python)
            provisioned = finding["fix"]["where"] == "controller"
            clinic.apply(fault.host, finding["fix"])
            # Once the play has taken the host over, its unit no longer holds a password.
            expect(clinic, fault.host, "healthy" if provisioned else healthy)
        finally:
            if fault.after:
                run_at(clinic, fault, fault.after)
            if fault.host == MANUAL:
                clinic.set_up_by_hand()
            elif "/etc/dispatch/environment" in fault.script and not provisioned:
                assert clinic.playbook("dispatch", "--limit", fault.host).code == 0


def run_at(clinic: Clinic, fault: Fault, script: str) -> None:
    if fault.on == "network":
        clinic.in_network_of(BROKER, script)
    else:
        clinic.run(fault.on or fault.host, script)


# -- faults that take more than a command ----------------------------------------------------


def test_a_queue_that_is_not_bound(clinic: Clinic) -> None:
    with ward(clinic, PLAIN, alone=False):
        with clinic.connected() as channel:
            channel.queue_unbind("orders", "robot-shop", "orders")
        clinic.apply(PLAIN, expect(clinic, PLAIN, "queue-unbound")["fix"])
        expect(clinic, PLAIN, "healthy")


def test_an_exchange_that_was_deleted(clinic: Clinic) -> None:
    with ward(clinic, PLAIN, alone=False):
        with clinic.connected() as channel:
            channel.exchange_delete("robot-shop")
        clinic.apply(PLAIN, expect(clinic, PLAIN, "queue-missing", "exchange robot-shop")["fix"])
        expect(clinic, PLAIN, "healthy")


def test_a_queue_declared_otherwise(clinic: Clinic) -> None:
    with ward(clinic, PLAIN, alone=True):
        clinic.run(PLAIN, "systemctl stop dispatch")
        with clinic.connected() as channel:
            channel.queue_delete("orders")
            channel.queue_declare("orders", durable=True, arguments={"x-max-length": 1000})
        clinic.run(PLAIN, RESTART)
        clinic.apply(PLAIN, expect(clinic, PLAIN, "declared-otherwise", "x-max-length")["fix"])
        expect(clinic, PLAIN, "healthy")


def test_a_quorum_queue_that_drops_what_is_delivered_often(clinic: Clinic) -> None:
    low = """rabbitmqctl set_policy --priority 9 low '^orders.dead$' '{"delivery-limit": 5}'"""
    with ward(clinic, PLAIN, alone=True):
        clinic.run(PLAIN, "systemctl stop dispatch")
        with clinic.connected() as channel:
            channel.queue_delete("orders.dead")
            channel.queue_declare("orders.dead", durable=True, arguments={"x-queue-type": "quorum"})
        clinic.run(BROKER, low)
        clinic.run(PLAIN, RESTART)
        try:
            clinic.apply(PLAIN, expect(clinic, PLAIN, "delivery-limit", "after 5 deliveries")["fix"])
            expect(clinic, PLAIN, "healthy")
        finally:
            clinic.run(BROKER, "rabbitmqctl clear_policy low; rabbitmqctl clear_policy orders.dead-delivery-limit")
            with clinic.connected() as channel:
                channel.queue_delete("orders.dead")
            clinic.run(PLAIN, "systemctl restart dispatch")


def test_a_host_that_does_not_consume_while_others_do(clinic: Clinic) -> None:
    # After many refusals the service waits long before it tries again, so it is idle although the cause is gone.
    with ward(clinic, PLAIN, alone=False):
        clinic.run(BROKER, "rabbitmqctl add_user slow slow-password")
        password = clinic.run(PLAIN, "cat /etc/dispatch/credentials/amqp_password")
        try:
            clinic.run(
                PLAIN, f"{setting('AMQP_USER', 'slow')}; printf slow-password > /etc/dispatch/credentials/amqp_password"
            )
            clinic.run(PLAIN, RESTART)
            late = (
                "journalctl -u dispatch -n 3 -o cat | grep -Eo '\"retry_in_seconds\": [0-9]+' | tail -1 | cut -d' ' -f2"
            )
            until(lambda: int(clinic.run(PLAIN, late) or 0) >= 12, 120)
            clinic.run(
                BROKER, "rabbitmqctl set_permissions slow '.*' '.*' '.*'; rabbitmqctl set_user_tags slow monitoring"
            )
            clinic.apply(PLAIN, expect(clinic, PLAIN, "not-consuming", "503", seconds=5)["fix"])
            expect(clinic, PLAIN, "healthy")
        finally:
            clinic.run(PLAIN, f"printf '{password}' > /etc/dispatch/credentials/amqp_password")
            assert clinic.playbook("dispatch", "--limit", PLAIN).code == 0
            clinic.run(BROKER, "rabbitmqctl delete_user slow")


def test_a_consumer_that_holds_orders_without_progress(clinic: Clinic) -> None:
    with ward(clinic, PLAIN, alone=True), ExitStack() as held:
        channel = held.enter_context(clinic.connected())
        channel.basic_consume("orders", lambda *_: None)
        ended = threading.Event()

        def hold() -> None:
            try:
                channel.start_consuming()
            except Exception:  # any error means that the broker has closed the connection
                ended.set()

        thread = threading.Thread(target=hold)
        thread.start()
        try:
            clinic.publish(count=10)
            clinic.apply(PLAIN, expect(clinic, PLAIN, "no-progress", "not acknowledged")["fix"])
            assert ended.wait(20)
            expect(clinic, PLAIN, "healthy")
        finally:
            clinic.run(BROKER, "rabbitmqctl close_all_user_connections roboshop 'the test is over'")
            thread.join()


def test_orders_that_are_tried_again_and_again(clinic: Clinic) -> None:
    with ward(clinic, PLAIN, alone=True):
        hook = f'printf "{HOOK}" > {RELEASE}/closed.py; {setting("DISPATCH_HOOK", "closed:hook")}'
        clinic.run(PLAIN, hook)
        expect(clinic, PLAIN, "healthy")
        clinic.publish(count=3)
        clinic.apply(PLAIN, expect(clinic, PLAIN, "retry-backlog", "closed:hook")["fix"])
        clinic.run(PLAIN, f"rm -f {RELEASE}/closed.py")  # already gone if the fix has rebuilt the release
        expect(clinic, PLAIN, "healthy", seconds=330)


def test_dead_letters(clinic: Clinic) -> None:
    with ward(clinic, PLAIN, alone=True):
        clinic.publish(b"not json", b"[]")
        finding = expect(clinic, PLAIN, "dead-letters", "2 in orders.dead; this process put there: ")
        clinic.apply(PLAIN, finding["fix"])
        expect(clinic, PLAIN, "healthy")
        # A second time, the fix does not touch what it has kept the first time.
        clinic.publish(b"nor this")
        clinic.apply(PLAIN, expect(clinic, PLAIN, "dead-letters", "1 in orders.dead")["fix"])
        kept = clinic.run(PLAIN, "cat /var/lib/dispatch/dead-letters-*.jsonl")
        assert all(f'"body": "{body}"' in kept for body in ("not json", "[]", "nor this"))


def test_a_certificate_that_is_not_trusted(clinic: Clinic) -> None:
    with ward(clinic, TLS, alone=False):
        _, certificate = issued(days=1)
        put(clinic.host(TLS), "/etc/dispatch/credentials", {"amqp_tls_ca": certificate})
        clinic.run(TLS, RESTART)
        clinic.apply(TLS, expect(clinic, TLS, "tls-untrusted")["fix"])
        expect(clinic, TLS, "healthy")


def test_a_certificate_that_has_expired(clinic: Clinic) -> None:
    with ward(clinic, TLS, alone=False):
        directory = clinic.inventory.parents[1] / "tls"
        signer = (directory / "ca.key").read_bytes(), (directory / "ca.pem").read_bytes()
        key, certificate = issued(days=-1, signer=signer)
        put(clinic.host(BROKER), "/etc/rabbitmq/tls", {"broker.pem": certificate, "broker.key": key})
        clinic.run(BROKER, "chown -R rabbitmq: /etc/rabbitmq/tls && systemctl restart rabbitmq-server")
        clinic.apply(TLS, expect(clinic, TLS, "tls-expired", "expired")["fix"])
        expect(clinic, TLS, "healthy", seconds=90)


def issued(days: int, signer: tuple[bytes, bytes] | None = None) -> tuple[bytes, bytes]:
    """Key and certificate, PEM, for the broker; valid for `days` from now, or until that many days ago."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, BROKER)])
    now, edge = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=abs(days))
    issuer_key: Any = key
    issuer = name
    if signer:
        issuer_key = serialization.load_pem_private_key(signer[0], None)
        issuer = x509.load_pem_x509_certificate(signer[1]).subject
    begin, end = (now - edge, now + edge) if days > 0 else (now - 2 * edge, now - edge)
    builder = x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number(), begin, end)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(BROKER)]), critical=False)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


def test_a_clock_that_is_off(clinic: Clinic) -> None:
    # Containers share the machine's clock, so only the doctor's is moved, and the fix, which would set it, is not run.
    with ward(clinic, PLAIN, alone=False):
        clinic.run(PLAIN, "apt-get update -qq && apt-get install -qq -y --no-install-recommends faketime")
        report = clinic.examine(PLAIN, before="faketime -f +600s")
        (finding,) = report["findings"]
        assert finding["id"] == "clock-skew"
        assert "ahead of the broker's" in finding["evidence"]
        assert finding["fix"]["command"] == "timedatectl set-ntp true"


def test_two_versions_in_one_fleet(clinic: Clinic, newer: Path, tmp_path: Path) -> None:
    page = tmp_path / "doctor.html"
    run = clinic.playbook("dispatch", "--limit", TLS, "-e", f"dispatch_artifact={newer}")
    assert run.code == 0, run.output
    run = clinic.playbook("doctor", "-e", f"dispatch_doctor_page={page}")
    assert run.code != 0
    assert "two-versions" in page.read_text()
    (fix,) = set(re.findall(r"^ *fix, on this machine: (.*)$", run.output, re.MULTILINE))
    done = subprocess.run(["bash", "-c", fix], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    run = clinic.playbook("doctor", "-e", f"dispatch_doctor_page={page}")
    assert run.code == 0, run.output


# -- health ------------------------------------------------------------------------------------


def test_a_healthy_host_after_a_reboot_and_under_load(clinic: Clinic) -> None:
    with ward(clinic, PLAIN, alone=True):
        clinic.host(PLAIN).restart()
        running: Callable[[], bool] = lambda: "running" in clinic.run(PLAIN, "systemctl is-system-running || true")  # noqa: E731
        until(running, 60)
        assert clinic.examine(PLAIN)["findings"] == []
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                clinic.publish(count=500)

        thread = threading.Thread(target=load)
        thread.start()
        try:
            reports = [clinic.examine(PLAIN) for _ in range(10)]
        finally:
            stop.set()
            thread.join()
        assert [report["findings"] for report in reports] == [[]] * 10


def test_it_changes_nothing(clinic: Clinic) -> None:
    with ward(clinic, PLAIN, alone=True):
        look = (
            "find /app /etc /var/lib/dispatch /root /tmp -xdev -newer /root/before -type f; ls -ld /var/lib/dispatch/*"
        )
        clinic.run(PLAIN, "systemctl stop dispatch; touch /root/before")
        before = clinic.run(PLAIN, look), clinic.run(BROKER, "rabbitmqctl -q export_definitions - | tail -1")
        clinic.examine(PLAIN)
        after = clinic.run(PLAIN, look), clinic.run(BROKER, "rabbitmqctl -q export_definitions - | tail -1")
        clinic.run(PLAIN, "systemctl start dispatch")
        assert after == before


def test_the_password_stands_in_no_report(clinic: Clinic) -> None:
    for host in (PLAIN, TLS, MANUAL):
        assert clinic.password not in json.dumps(clinic.examine(host))


def test_every_check_has_a_test_of_its_own() -> None:
    source = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    assert [check.id for check in CHECKS if f'"{check.id}"' not in source] == []
