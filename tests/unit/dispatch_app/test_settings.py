"""Settings: what is accepted, and that every bad value is named at once."""

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from dispatch_app import topology
from dispatch_app.settings import Interface, SettingsError, ledger, load, state_directory

GOOD = {"AMQP_HOST": "10.0.0.5", "AMQP_PASS": "s3cret-word"}


def problems(**env: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load({**GOOD, **env})
    return caught.value.problems


def test_the_seeds_three_variables_are_enough() -> None:
    settings = load({**GOOD, "AMQP_USER": "roboshop"})
    assert settings.hosts == ("10.0.0.5",)
    assert (settings.port, settings.vhost, settings.exchange) == (5672, "/", "robot-shop")
    assert (settings.queue, settings.routing_key) == ("orders", "orders")
    assert settings.tls is None
    assert settings.http == ("127.0.0.1", 9672)


def test_the_password_shows_neither_in_the_url_nor_in_a_repr() -> None:
    settings = load(GOOD)
    assert settings.url("10.0.0.5") == "amqp://roboshop@10.0.0.5:5672/%2F"
    assert "s3cret-word" not in repr(settings) + settings.url("10.0.0.5")


def test_hosts_are_a_list_and_ipv6_is_one_of_them() -> None:
    settings = load({**GOOD, "AMQP_HOST": "a.example, b.example ,fd00::5", "AMQP_TLS": "true"})
    assert settings.hosts == ("a.example", "b.example", "fd00::5")
    assert settings.url("fd00::5") == "amqps://roboshop@[fd00::5]:5671/%2F"


@pytest.mark.parametrize(
    "host",
    ["", " ", "a,", "<RABBITMQ-IP>", "<RABBITMQ-SERVER-IP-ADDRESS>", "a:5672", "amqp://a", "u@a", "a b", "a;b"],
)
def test_a_bad_host_is_refused_by_name(host: str) -> None:
    (problem,) = problems(AMQP_HOST=host)
    assert problem.startswith("AMQP_HOST ")


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "5672 ", "1e3", "99999999999999999999", "٣"])
def test_a_port_out_of_range_is_refused_by_name(port: str) -> None:
    (problem,) = problems(AMQP_PORT=port)
    assert problem.startswith("AMQP_PORT ")
    assert "1 to 65535" in problem


def test_all_problems_are_reported_together() -> None:
    found = problems(
        AMQP_HOST="", AMQP_PASS="", AMQP_PORT="x", AMQP_TLS="maybe", AMQP_QUEUE="q" * 300,
        DISPATCH_HTTP="nine", DISPATCH_PREFETCH="0", DISPATCH_MAX_BODY="1e6",
        DISPATCH_HOOK="no-colon", DISPATCH_RETENTION_DAYS="-1", DISPATCH_LOG_LEVEL="loud",
        DISPATCH_EVENT_EXCHANGE="a\nb", DISPATCH_RETRY_DELAYS="1,,5",
    )  # fmt: skip
    assert sorted(problem.split()[0] for problem in found) == [
        "AMQP_HOST", "AMQP_PASS", "AMQP_PORT", "AMQP_QUEUE", "AMQP_TLS",
        "DISPATCH_EVENT_EXCHANGE", "DISPATCH_HOOK", "DISPATCH_HTTP", "DISPATCH_LOG_LEVEL", "DISPATCH_MAX_BODY",
        "DISPATCH_PREFETCH", "DISPATCH_RETENTION_DAYS", "DISPATCH_RETRY_DELAYS",
    ]  # fmt: skip


@pytest.mark.parametrize("delays", ["0", "-1", "1.5", "86401", "1," * 10 + "1", "1;5", "x", "1,5,"])
def test_bad_retry_delays_are_refused_by_name(delays: str) -> None:
    (problem,) = problems(DISPATCH_RETRY_DELAYS=delays)
    assert problem.startswith("DISPATCH_RETRY_DELAYS ")
    assert "1 to 86400" in problem


def test_retry_delays_name_the_queues() -> None:
    settings = load({**GOOD, "DISPATCH_RETRY_DELAYS": "2, 60,60,86400", "AMQP_QUEUE": "q" * 240})
    assert settings.retry_delays == (2, 60, 60, 86400)
    queues = topology.queues(settings)
    own = [(queues[name] or {})["x-message-ttl"] for name in topology.retry_queues(settings)]
    assert own == [2000, 60_000, 86_400_000]
    assert max(map(len, queues)) <= 255


def test_the_password_comes_from_the_credential_less_one_newline(tmp_path: Path) -> None:
    (tmp_path / "amqp_password").write_text("pass word\n\n")
    env = {"AMQP_HOST": "a", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load(env).password == "pass word\n"  # noqa: S105 - a made-up one
    assert load({**env, "AMQP_PASS": "direct"}).password == "direct"  # noqa: S105 - a made-up one


def test_a_missing_or_empty_credential_is_a_missing_password(tmp_path: Path) -> None:
    env = {"AMQP_HOST": "a", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    for content in (None, "", "\n"):
        if content is not None:
            (tmp_path / "amqp_password").write_text(content)
        with pytest.raises(SettingsError, match="AMQP_PASS is not set"):
            load(env)


@pytest.mark.parametrize("value", ["127.0.0.1:9672", "dispatch-1.example.org:80", "[::1]:9672", "not-there.invalid:1"])
def test_any_http_address_that_can_be_parsed_is_a_good_setting(value: str) -> None:
    host, port = load({**GOOD, "DISPATCH_HTTP": value}).http
    assert f"{host}:{port}" == value


@pytest.mark.parametrize(
    "value", ["::1:9672", "a b:80", f"{'a' * 64}.org:80", "a..b:80", "[::1:80", ":80", "a:0", "a:65536"]
)
def test_what_is_no_http_address_is_told(value: str) -> None:
    assert problems(DISPATCH_HTTP=value)[0].startswith("DISPATCH_HTTP is ")


def test_tls_files_must_be_there_and_wanted(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    settings = load({**GOOD, "AMQP_TLS": "yes", "AMQP_TLS_CA": str(ca), "AMQP_TLS_SERVER_NAME": "mq"})
    assert settings.tls
    assert (settings.tls.ca, settings.tls.server_name) == (str(ca), "mq")
    assert problems(AMQP_TLS_CA=str(ca))[0].startswith("AMQP_TLS_CA is set but AMQP_TLS is not")
    assert problems(AMQP_TLS="1", AMQP_TLS_CA=str(tmp_path / "no"))[0].startswith("AMQP_TLS_CA ")
    assert problems(AMQP_TLS="1", AMQP_TLS_KEY=str(ca))[0].startswith("AMQP_TLS_CERT ")


def test_tls_files_are_credentials_where_tls_is_on_and_no_variable_names_them(tmp_path: Path) -> None:
    for name in ("amqp_tls_ca", "amqp_tls_cert", "amqp_tls_key", "other.pem"):
        (tmp_path / name).touch()
    env = {**GOOD, "CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load(env).tls is None
    tls = load({**env, "AMQP_TLS": "true", "AMQP_TLS_CA": str(tmp_path / "other.pem")}).tls
    assert tls
    assert (tls.ca, tls.cert) == (str(tmp_path / "other.pem"), str(tmp_path / "amqp_tls_cert"))
    assert (tls.key, tls.server_name) == (str(tmp_path / "amqp_tls_key"), None)
    (tmp_path / "amqp_tls_cert").unlink()
    assert problems(**env, AMQP_TLS="true")[0].startswith("AMQP_TLS_CERT ")


def test_the_ledger_lies_in_the_first_state_directory(tmp_path: Path) -> None:
    assert state_directory({"STATE_DIRECTORY": f"{tmp_path}:/elsewhere"}) == tmp_path
    for directory in ("", "relative", str(tmp_path / "missing")):
        with pytest.raises(SettingsError, match="STATE_DIRECTORY"):
            state_directory({"STATE_DIRECTORY": directory})


SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
POSTING = {**GOOD, "DISPATCH_WEBHOOK_URL": "https://shop.example/d?token=t", "DISPATCH_WEBHOOK_SECRET": SECRET}


def test_a_webhook_has_a_url_and_a_secret_and_shows_neither_key_nor_query(tmp_path: Path) -> None:
    webhook = load(POSTING).webhook
    assert webhook
    assert (webhook.key, webhook.seconds, str(webhook)) == (bytes(range(24)), 10, "https://shop.example/d")
    assert "\\x01" not in repr(webhook)
    (tmp_path / "webhook_secret").write_text(f"{SECRET}\n")
    del (given := POSTING.copy())["DISPATCH_WEBHOOK_SECRET"]
    assert load({**given, "CREDENTIALS_DIRECTORY": str(tmp_path)}).webhook == webhook


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"DISPATCH_WEBHOOK_URL": ""}, "DISPATCH_WEBHOOK_SECRET is set but DISPATCH_WEBHOOK_URL is not; "),
        ({"DISPATCH_WEBHOOK_URL": "ftp://a/"}, "DISPATCH_WEBHOOK_URL is no http or https URL; "),
        ({"DISPATCH_WEBHOOK_URL": "https:///a"}, "DISPATCH_WEBHOOK_URL is no http or https URL; "),
        ({"DISPATCH_WEBHOOK_URL": "http://a:b/"}, "DISPATCH_WEBHOOK_URL is no URL (Port could not be cast"),
        ({"DISPATCH_WEBHOOK_URL": "http://a/ä"}, "DISPATCH_WEBHOOK_URL has characters that no URL may have; "),
        ({"DISPATCH_WEBHOOK_URL": "http://u:p@a/"}, "DISPATCH_WEBHOOK_URL holds a user, a password or a fragment"),
        ({"DISPATCH_HOOK": "a:b"}, "DISPATCH_WEBHOOK_URL is set, and DISPATCH_HOOK is, too; unset one"),
        ({"DISPATCH_WEBHOOK_SECRET": ""}, "DISPATCH_WEBHOOK_SECRET is not set but DISPATCH_WEBHOOK_URL is; "),
        ({"DISPATCH_WEBHOOK_SECRET": "whsec_AAAA"}, "DISPATCH_WEBHOOK_SECRET is not whsec_ and 24 to 64 octets"),
        ({"DISPATCH_WEBHOOK_SECRET": "whsec_ä"}, "DISPATCH_WEBHOOK_SECRET is not whsec_ and 24 to 64 octets"),
        ({"DISPATCH_WEBHOOK_SECRET": SECRET[6:]}, "DISPATCH_WEBHOOK_SECRET is not whsec_ and 24 to 64 octets"),
    ],
)
def test_a_webhook_that_can_not_work_is_refused_by_name(wrong: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({**POSTING, **wrong})
    assert [one.startswith(problem) for one in caught.value.problems] == [True]
    assert "u:p" not in str(caught.value)


TRACED = {**GOOD, "DISPATCH_OTLP_ENDPOINT": "https://collector.example/otlp/"}


def test_a_collector_has_a_url_headers_and_a_ratio_and_shows_no_header(tmp_path: Path) -> None:
    assert load(GOOD).otlp is None
    found = load({**TRACED, "DISPATCH_OTLP_HEADERS": "api-key=a%2Cb , x=y=z", "DISPATCH_OTLP_RATIO": "0.25"}).otlp
    assert found
    assert (found.url, found.ratio) == ("https://collector.example/otlp", 0.25)
    assert found.headers == {"api-key": "a,b", "x": "y=z"}
    assert "a,b" not in repr(found)
    (tmp_path / "otlp_headers").write_text("api-key=a%2Cb,x=y=z\n")
    given = {**TRACED, "DISPATCH_OTLP_RATIO": "0.25", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load(given).otlp == found
    plain = load(TRACED).otlp
    assert plain
    assert (plain.headers, plain.ratio) == ({}, 1.0)


@pytest.mark.parametrize(("ratio", "read"), [("0", 0.0), ("1", 1.0), ("1.0", 1.0), ("1e-05", 0.00001), ("0.", 0.0)])
def test_a_ratio_is_a_number_from_0_to_1(ratio: str, read: float) -> None:
    found = load({**TRACED, "DISPATCH_OTLP_RATIO": ratio}).otlp
    assert found
    assert found.ratio == read


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"DISPATCH_OTLP_ENDPOINT": "collector:4317"}, "DISPATCH_OTLP_ENDPOINT is no http or https URL; set the"),
        ({"DISPATCH_OTLP_ENDPOINT": "grpc://a:4317"}, "DISPATCH_OTLP_ENDPOINT is no http or https URL; set the"),
        ({"DISPATCH_OTLP_ENDPOINT": "http://u:p@a/"}, "DISPATCH_OTLP_ENDPOINT holds a user, a password or a fragment"),
        ({"DISPATCH_OTLP_ENDPOINT": "http://a/?k=u:p"}, "DISPATCH_OTLP_ENDPOINT has a query, which OTLP has no use"),
        (
            {"DISPATCH_OTLP_ENDPOINT": "http://a:4318/v1/traces/"},
            "DISPATCH_OTLP_ENDPOINT ends in /v1/traces, which is appended to it; leave that out",
        ),
        ({"DISPATCH_OTLP_RATIO": "1.1"}, "DISPATCH_OTLP_RATIO is '1.1'; set a number from 0 to 1, such as"),
        ({"DISPATCH_OTLP_RATIO": "-1"}, "DISPATCH_OTLP_RATIO is '-1'; set"),
        ({"DISPATCH_OTLP_RATIO": "nan"}, "DISPATCH_OTLP_RATIO is 'nan'; set"),
        ({"DISPATCH_OTLP_RATIO": "1%"}, "DISPATCH_OTLP_RATIO is '1%'; set"),
        ({"DISPATCH_OTLP_HEADERS": "u:p"}, "DISPATCH_OTLP_HEADERS is no list of headers; set name=value"),
        ({"DISPATCH_OTLP_HEADERS": "a=u:p%0d%0ab: c"}, "DISPATCH_OTLP_HEADERS is no list of headers; set"),
        ({"DISPATCH_OTLP_HEADERS": "a b=u:p"}, "DISPATCH_OTLP_HEADERS is no list of headers; set"),
        ({"DISPATCH_OTLP_HEADERS": "a=u:p,b="}, "DISPATCH_OTLP_HEADERS is no list of headers; set"),
        (
            {"DISPATCH_OTLP_ENDPOINT": "", "DISPATCH_OTLP_RATIO": "0.5"},
            "DISPATCH_OTLP_RATIO is set but DISPATCH_OTLP_ENDPOINT is not; set both, or neither",
        ),
        (
            {"DISPATCH_OTLP_ENDPOINT": "", "DISPATCH_OTLP_HEADERS": "a=u:p"},
            "DISPATCH_OTLP_HEADERS is set but DISPATCH_OTLP_ENDPOINT is not; set both, or neither",
        ),
    ],
)
def test_a_collector_that_can_not_be_told_is_refused_by_name(wrong: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({**TRACED, **wrong})
    assert [one.startswith(problem) for one in caught.value.problems] == [True]
    assert "u:p" not in str(caught.value)


SHARED = {**GOOD, "DISPATCH_LEDGER": "postgresql://dispatch@db-1/orders", "DISPATCH_LEDGER_PASSWORD": "s3cret-word"}


def test_a_ledger_of_the_fleet_is_verified_and_shows_no_password(tmp_path: Path) -> None:
    assert load(GOOD).ledger is None
    found = load(SHARED).ledger
    assert found
    assert str(found) == "postgresql://dispatch@db-1:5432/orders"
    assert "s3cret-word" not in repr(found)
    assert found.sslmode == "verify-full"
    (tmp_path / "ledger_password").write_text("s3cret-word\n")
    (tmp_path / "dispatch_ledger_ca").write_text("a certificate")
    given = {**GOOD, "DISPATCH_LEDGER": SHARED["DISPATCH_LEDGER"], "CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load(given).ledger == replace(found, ca=str(tmp_path / "dispatch_ledger_ca"))
    assert ledger({"DISPATCH_LEDGER": SHARED["DISPATCH_LEDGER"], "DISPATCH_LEDGER_PASSWORD": "s3cret-word"}) == found


def test_a_ledger_has_several_hosts_ipv6_sockets_and_odd_names() -> None:
    url = "postgresql://a%40b@db-1:5433,[fd00::5],db-3/a%2Fb?sslmode=require"
    found = load({**SHARED, "DISPATCH_LEDGER": url}).ledger
    assert found
    assert found.parameters() == {
        "host": "db-1,fd00::5,db-3", "port": "5433,5432,5432", "dbname": "a/b", "user": "a@b", "sslmode": "require",
        "password": "s3cret-word",
    }  # fmt: skip
    socket = load({**GOOD, "DISPATCH_LEDGER": "postgresql://dispatch@%2Frun%2Fpostgresql/d"}).ledger
    assert socket
    assert (socket.hosts, socket.sockets, socket.password) == (("/run/postgresql",), True, "")
    for host in ("127.0.0.1", "[::1]", "localhost", "%2Frun"):
        assert load({**SHARED, "DISPATCH_LEDGER": f"postgresql://d@{host}/d?sslmode=disable"}).ledger


def test_a_ca_that_is_given_is_used_and_else_those_that_the_host_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, ca = tmp_path / "bundle.crt", tmp_path / "ca.crt"
    bundle.touch()
    ca.touch()
    monkeypatch.setattr("dispatch_app.database._BUNDLES", (str(tmp_path / "none"), str(bundle)))
    for env, expected in (({}, bundle), ({"DISPATCH_LEDGER_CA": str(ca)}, ca)):
        found = load({**SHARED, **env}).ledger
        assert found
        assert found.parameters()["sslrootcert"] == str(expected)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"DISPATCH_LEDGER": "postgresql://d@db-1"}, "DISPATCH_LEDGER names no database; put its name at the end"),
        ({"DISPATCH_LEDGER": "postgresql://d@db-1/"}, "DISPATCH_LEDGER names no database; "),
        ({"DISPATCH_LEDGER": "postgresql://d@db-1/?sslmode=require"}, "DISPATCH_LEDGER names no database; "),
        ({"DISPATCH_LEDGER": "postgresql://db-1/d"}, "DISPATCH_LEDGER names no user; "),
        ({"DISPATCH_LEDGER": "postgresql://d:u-p@db-1/d"}, "DISPATCH_LEDGER holds a password; leave it out"),
        ({"DISPATCH_LEDGER": "mysql://d@db-1/d"}, "DISPATCH_LEDGER is no URL of a PostgreSQL database; "),
        ({"DISPATCH_LEDGER": "host=db-1 dbname=d"}, "DISPATCH_LEDGER has characters that no URL may have; "),
        ({"DISPATCH_LEDGER": "postgresql://d@db-1,/d"}, "DISPATCH_LEDGER has '', which is no host, or host:port; "),
        ({"DISPATCH_LEDGER": "postgresql://d@db-1:0/d"}, "DISPATCH_LEDGER has 'db-1:0', which is no host"),
        ({"DISPATCH_LEDGER": "postgresql://d@<DB>/d"}, "DISPATCH_LEDGER is still the placeholder <DB>; "),
        ({"DISPATCH_LEDGER": "postgresql://d@db-1/d?sslmode=prefer"}, "DISPATCH_LEDGER has sslmode=prefer; set one of"),
        ({"DISPATCH_LEDGER": "postgresql://d@localhost,db-1/d?sslmode=disable"}, "DISPATCH_LEDGER has sslmode=disable"),
        ({"DISPATCH_LEDGER": "postgresql://d@db-1/d?sslrootcert=/x"}, "DISPATCH_LEDGER has the parameter sslrootcert"),
        ({"DISPATCH_LEDGER": "postgresql://d@db-1/d?password=u-p"}, "DISPATCH_LEDGER has the parameter password; "),
        ({"DISPATCH_LEDGER_PASSWORD": ""}, "DISPATCH_LEDGER_PASSWORD is not set but DISPATCH_LEDGER is; set it, or"),
        ({"DISPATCH_LEDGER": ""}, "DISPATCH_LEDGER_PASSWORD is set but DISPATCH_LEDGER is not; "),
        ({"DISPATCH_LEDGER_CA": "/nowhere"}, "DISPATCH_LEDGER_CA is /nowhere, which is not a file that can be read; "),
    ],
)
def test_a_ledger_that_can_not_be_is_refused_by_name(wrong: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({**SHARED, **wrong})
    assert [one.startswith(problem) for one in caught.value.problems] == [True]
    assert "u-p" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("", None),
        ("10.0.2.11", ("10.0.2.11", 9672)),
        ("dispatch-1:9700", ("dispatch-1", 9700)),
        ("[fd00::1]", ("[fd00::1]", 9672)),
        ("[fd00::1]:80", ("[fd00::1]", 80)),
        ("%eth0", Interface("eth0", 9672)),
        ("%bond0.12:9700", Interface("bond0.12", 9700)),
        ("unix:/run/dispatch/http.sock", Path("/run/dispatch/http.sock")),
    ],
)
def test_metrics_are_served_at_an_address_an_interface_or_a_socket(value: str, place: object) -> None:
    assert load({**GOOD, "DISPATCH_METRICS": value}).metrics == place


@pytest.mark.parametrize(
    "value",
    ["0.0.0.0:9672", "[::]", "[::0]:9672", "10.0.2.11:0", "%", "%eth0:70000", "%a/b", "%" + "e" * 16,
     "unix:", "unix:run/http.sock", "unix:/" + "x" * 107, "http://10.0.2.11", "10.0.2.11/24", "a b"],
)  # fmt: skip
def test_metrics_are_served_nowhere_else(value: str) -> None:
    (problem,) = problems(DISPATCH_METRICS=value)
    assert problem.startswith(f"DISPATCH_METRICS is {value!r}")
    assert "set an address of this host" in problem
    assert ("every address" in problem) == (value.startswith("0.") or "::" in value)
