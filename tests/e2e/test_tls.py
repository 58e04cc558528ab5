"""TLS, client certificates and bearer tokens, with real certificates."""
import os
import socket
import ssl
import time
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from certificates import Authority, openssl, read, replace
from harness import Server, error_of, eventually, run_cli
from stubs import pb, rpc

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
FORBIDDEN = grpc.StatusCode.PERMISSION_DENIED
TOKEN, GENERATE_TOKEN = "all-2vFqZJ0p3s1H5cUe", "some-N8pPdU0x7yQmXwKa"
OLD = pytest.mark.filterwarnings("ignore:ssl.TLSVersion.*deprecated")  # what is to be refused
TOKENS = f"# two of them\n{TOKEN}\n{GENERATE_TOKEN} Generate,GenerateStream\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(str(tmp_path_factory.mktemp("authority")), "authority")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return Authority(str(tmp_path_factory.mktemp("other")), "other")


class Files:
    """The files that a server is given, in a folder of their own."""

    def __init__(self, folder, certificate, key, client_ca=None, tokens=None):
        self.certificate = os.path.join(folder, "server.pem")
        self.key = os.path.join(folder, "server.key")
        replace(self.certificate, read(certificate))
        replace(self.key, read(key))
        self.flags = ["--tls-certificate", self.certificate, "--tls-key", self.key]
        if client_ca:
            self.client_ca = os.path.join(folder, "clients.pem")
            replace(self.client_ca, read(client_ca))
            self.flags += ["--tls-client-ca", self.client_ca]
        if tokens:
            self.tokens = os.path.join(folder, "tokens")
            replace(self.tokens, tokens.encode())
            self.flags += ["--auth-token-file", self.tokens]


class Secure:
    """A client of its own connection. `client`: (certificate, key)."""

    def __init__(self, server, authority, client=None, token=None, options=()):
        pair = [read(path) for path in client] if client else [None, None]
        self.channel = grpc.secure_channel(
            server.address,
            grpc.ssl_channel_credentials(read(authority.certificate), pair[1], pair[0]),
            options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0), *options])
        self.stub = rpc.InferenceStub(self.channel)
        self.metadata = [("authorization", f"Bearer {token}")] if token else []

    def generate(self, new_tokens=2, timeout=20):
        return self.stub.Generate(request(new_tokens), timeout=timeout, metadata=self.metadata)

    def stream(self, new_tokens, timeout=60):
        return self.stub.GenerateStream(request(new_tokens), timeout=timeout,
                                        metadata=self.metadata)

    def refused(self):
        """The handshake has failed."""
        error = error_of(lambda: self.generate(timeout=5))
        self.channel.close()
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        return True


def request(new_tokens):
    return pb.GenerateRequest(prompt="Once", max_new_tokens=new_tokens, stop={"ignore_eos": True})


def serves(server, authority, **client):
    one = Secure(server, authority, **client)
    try:
        return len(one.generate().completions[0].token_ids) == 2
    except grpc.RpcError:
        return False
    finally:
        one.channel.close()


@pytest.fixture(scope="module")
def tls(tiny, authority, tmp_path_factory):
    files = Files(str(tmp_path_factory.mktemp("tls")), *authority.issue("server"))
    with Server(tiny, "--max-batch-size", 4, "--max-length", 4096, *files.flags) as server:
        server.files = files
        yield server


@pytest.fixture(scope="module")
def mutual(tiny, authority, tmp_path_factory):
    """Client certificates, tokens, and metrics over TLS."""
    files = Files(str(tmp_path_factory.mktemp("mutual")), *authority.issue("server"),
                  authority.certificate, TOKENS)
    flags = [*files.flags, "--metrics-tls", "true"]
    with Server(tiny, "--max-batch-size", 4, "--max-length", 4096, *flags) as server:
        server.files = files
        yield server


def trusting(authority, version=None):
    """A client's context; of one version alone, which the client itself would refuse otherwise."""
    context = ssl.create_default_context(cafile=authority.certificate)
    if version:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
    return context


def page(server, authority, path="/metrics", version=None):
    """A page of the metrics port, over TLS."""
    trust = trusting(authority, version)
    with urllib.request.urlopen(f"https://{server.metrics_address}{path}", context=trust,
                                timeout=10) as answer:
        return answer.read().decode()


class TestTls:
    def test_serves(self, tls, authority):
        assert serves(tls, authority)

    def test_in_the_clear_nothing_is_said(self, tls):
        with tls.new_channel() as channel:
            error = error_of(lambda: rpc.InferenceStub(channel).GetModel(
                pb.GetModelRequest(), timeout=5))
            assert error.code() == grpc.StatusCode.UNAVAILABLE

    def test_an_authority_that_the_client_does_not_trust(self, tls, other):
        assert Secure(tls, other).refused()

    def test_failed_handshakes_are_counted(self, tls, other):
        series = {"reason": "handshake"}
        before = tls.metrics()("sirocco_denied_total", **series)
        assert Secure(tls, other).refused()
        eventually(lambda: tls.metrics()("sirocco_denied_total", **series) > before)

    @OLD
    def test_old_versions_are_refused(self, tls, authority):
        host, port = tls.address.rsplit(":", 1)

        def connect(version):
            with socket.create_connection((host, int(port))) as raw:
                trusting(authority, version).wrap_socket(raw, server_hostname=host).close()
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            with pytest.raises(OSError, match="ALERT_PROTOCOL_VERSION|EOF|reset"):
                connect(version)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            connect(version)

    def test_when_the_certificate_ends_is_a_metric(self, tls):
        left = tls.metrics()("sirocco_certificate_expiry_timestamp_seconds") - time.time()
        assert 23 * 3600 < left < 25 * 3600

    def test_the_commands_call_by_tls(self, tls, authority):
        result = run_cli("generate", "--address", tls.address, "--ca", authority.certificate,
                         "--max-new-tokens", 2, "Once")
        assert result.returncode == 0, result.stderr
        plain = run_cli("generate", "--address", tls.address, "--max-new-tokens", 2, "Once")
        assert plain.returncode == 1


@pytest.mark.parametrize("fault", ["expired", "not yet valid", "of another host"])
def test_certificates_that_clients_refuse(tiny, authority, tmp_path, fault):
    """The server warns of what it can know, and serves: the client decides."""
    kind = {"expired": {"begins": -3, "ends": -1}, "not yet valid": {"begins": 1, "ends": 2},
            "of another host": {"alternatives": "DNS:elsewhere.example"}}[fault]
    files = Files(str(tmp_path), *authority.issue("server", **kind))
    with Server(tiny, *files.flags) as server:
        assert Secure(server, authority).refused()
        warned = "clients will refuse it" in server.stderr()
        assert warned == (fault != "of another host")
        if fault == "of another host":
            assert serves(server, authority, options=[
                ("grpc.ssl_target_name_override", "elsewhere.example")])


class TestClientCertificates:
    def test_one_of_the_authority(self, mutual, authority):
        assert serves(mutual, authority, client=authority.issue("client"), token=TOKEN)

    def test_none(self, mutual, authority):
        assert Secure(mutual, authority, token=TOKEN).refused()

    def test_one_of_another_authority(self, mutual, authority, other):
        assert Secure(mutual, authority, other.issue("client"), TOKEN).refused()

    def test_an_expired_one(self, mutual, authority):
        old = authority.issue("client", begins=-3, ends=-1)
        assert Secure(mutual, authority, old, TOKEN).refused()

    def test_one_that_signed_itself(self, mutual, authority, tmp_path):
        alone = Authority(str(tmp_path), "client")
        assert Secure(mutual, authority, (alone.certificate, alone.key), TOKEN).refused()

    def test_a_token_replaces_none(self, mutual, authority):
        client = authority.issue("client")
        assert error_of(Secure(mutual, authority, client).generate).code() == UNAUTHENTICATED

    def test_the_commands_show_theirs(self, mutual, authority, tmp_path):
        certificate, key = authority.issue("client")
        (tmp_path / "token").write_text(TOKEN + "\n")
        flags = ["--address", mutual.address, "--ca", authority.certificate,
                 "--client-certificate", certificate, "--client-key", key,
                 "--token-file", tmp_path / "token"]
        for command in (["info"], ["generate", "--max-new-tokens", 2, "Once"],
                        ["bench", "--batch", 1, "--requests", 1, "--prompt-length", 4,
                         "--output-length", 4]):
            result = run_cli(*command, *flags)
            assert result.returncode == 0, (command, result.stderr)
        assert run_cli("info", *flags[:-2]).returncode == 1


class TestTokens:
    @pytest.fixture(scope="class")
    def guarded(self, tiny, tmp_path_factory):
        """In the clear, as behind a proxy that ends TLS."""
        tokens = tmp_path_factory.mktemp("tokens") / "tokens"
        tokens.write_text(TOKENS)
        with Server(tiny, "--max-batch-size", 4, "--max-length", 4096,
                    "--auth-token-file", tokens) as server:
            server.tokens = str(tokens)
            yield server

    def call(self, server, method="GetModel", authorization=None):
        """The call's code; None: it succeeded."""
        values = [authorization] if isinstance(authorization, str) else authorization or []
        metadata = [("authorization", value) for value in values]
        send = server.channel.unary_unary(f"/sirocco.v1.Inference/{method}",
                                          request_serializer=bytes, response_deserializer=bytes)
        payload = b"" if method == "GetModel" else request(1).SerializeToString()
        try:
            send(payload, timeout=20, metadata=metadata)
        except grpc.RpcError as error:
            return error.code()
        return None

    @pytest.mark.parametrize("authorization", [
        None, "", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN} ", f"Bearer {TOKEN.upper()}", TOKEN, f"Basic {TOKEN}",
        f"Bearer {TOKEN} Generate", "Bearer #", ["Bearer x", f"Bearer {TOKEN}"],
    ])
    def test_none_or_a_wrong_one(self, guarded, authorization):
        for method in ("GetModel", "Generate"):
            assert self.call(guarded, method, authorization) == UNAUTHENTICATED

    def test_the_right_one(self, guarded):
        assert self.call(guarded, "GetModel", f"Bearer {TOKEN}") is None
        assert self.call(guarded, "GetModel", f"bearer {TOKEN}") is None

    def test_a_rule_for_methods(self, guarded):
        assert self.call(guarded, "Generate", f"Bearer {GENERATE_TOKEN}") is None
        for method in ("GetModel", "Tokenize", "Detokenize", "NoSuchMethod"):
            assert self.call(guarded, method, f"Bearer {GENERATE_TOKEN}") == FORBIDDEN

    def test_unknown_methods_are_told_to_nobody(self, guarded):
        assert self.call(guarded, "NoSuchMethod") == UNAUTHENTICATED
        assert self.call(guarded, "NoSuchMethod", f"Bearer {TOKEN}") \
            == grpc.StatusCode.UNIMPLEMENTED

    def test_health_needs_none(self, guarded):
        for name in ("", "liveness", "sirocco.v1.Inference"):
            assert guarded.check_health(name) == "SERVING"
        watch = health_pb2_grpc.HealthStub(guarded.channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=20)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()

    def test_reflection_needs_one(self, guarded):
        stub = reflection_pb2_grpc.ServerReflectionStub(guarded.channel)

        def services(metadata):
            ask = reflection_pb2.ServerReflectionRequest(list_services="")
            return next(stub.ServerReflectionInfo(iter([ask]), timeout=20, metadata=metadata))
        assert error_of(lambda: services([])).code() == UNAUTHENTICATED
        assert services([("authorization", f"Bearer {TOKEN}")]).list_services_response.service

    def test_refusals_are_counted_and_logged_without_the_token(self, guarded):
        before = guarded.metrics()
        secret = "not-a-token-of-this-server"
        self.call(guarded, "Generate", f"Bearer {secret}")
        self.call(guarded, "Generate")
        self.call(guarded, "GetModel", f"Bearer {GENERATE_TOKEN}")
        after = guarded.metrics()

        def grown(name, **labels):
            return after(name, **labels) - before(name, **labels)
        for reason in ("token_missing", "token_unknown", "method_forbidden"):
            assert grown("sirocco_denied_total", reason=reason) == 1
        assert grown("sirocco_requests_total", method="Generate", code="UNAUTHENTICATED") == 2
        assert grown("sirocco_requests_total", method="GetModel", code="PERMISSION_DENIED") == 1
        log = guarded.stderr()
        assert "UNAUTHENTICATED" in log and "sees the tokens" in log
        for token in (secret, TOKEN, GENERATE_TOKEN):
            assert token not in log

    def test_a_large_message_is_not_read_without_a_token(self, guarded):
        send = guarded.channel.unary_unary("/sirocco.v1.Inference/Generate",
                                           request_serializer=bytes, response_deserializer=bytes)
        error = error_of(lambda: send(b"\xff" * (7 << 20), timeout=20))
        assert error.code() == UNAUTHENTICATED

    def test_rotated_under_a_stream(self, guarded):
        """What runs goes on; the next call needs the new one. A file that cannot serve is left."""
        fresh = "fresh-Zk3vW9sLqTn4Rb8e"
        running = guarded.stub.GenerateStream(request(3000), timeout=60, metadata=[
            ("authorization", f"Bearer {TOKEN}")])
        got = len(next(running).token_ids)
        replace(guarded.tokens, f"{fresh}\n".encode())
        eventually(lambda: self.call(guarded, authorization=f"Bearer {fresh}") is None)
        assert self.call(guarded, authorization=f"Bearer {TOKEN}") == UNAUTHENTICATED
        for broken in (b"", b"# none\n", b"two words more\n", b"\xff\xfe\n"):
            replace(guarded.tokens, broken)
            failed = guarded.metrics()("sirocco_credential_reloads_total", what="tokens",
                                       result="failed")
            eventually(lambda: guarded.metrics()(
                "sirocco_credential_reloads_total", what="tokens", result="failed") == failed + 1)
            assert self.call(guarded, authorization=f"Bearer {fresh}") is None
        os.remove(guarded.tokens)
        time.sleep(1.5)
        assert self.call(guarded, authorization=f"Bearer {fresh}") is None
        got += sum(len(event.token_ids) for event in running)
        assert got == 3000
        replace(guarded.tokens, TOKENS.encode())
        eventually(lambda: self.call(guarded, authorization=f"Bearer {TOKEN}") is None)


def reloads(server, result):
    return server.metrics()("sirocco_credential_reloads_total", what="tls", result=result)


def test_certificates_rotated_under_a_stream(tls, authority, other):
    """Also to another authority; and what does not fit is left."""
    files = tls.files
    certificate, key = read(files.certificate), read(files.key)
    before = Secure(tls, authority)
    running = before.stream(3000)
    got = len(next(running).token_ids)
    new_certificate, new_key = (read(path) for path in other.issue("server"))

    replace(files.certificate, new_certificate)  # whose key is not there yet
    eventually(lambda: reloads(tls, "failed") == 1)
    assert serves(tls, authority)
    replace(files.key, new_key)
    eventually(lambda: serves(tls, other), what="the new certificate")
    assert Secure(tls, authority).refused()
    assert len(before.generate().completions[0].token_ids) == 2, "on the connection from before"

    for broken in (b"", b"no certificate", new_certificate[:200]):
        failed = reloads(tls, "failed")
        replace(files.certificate, broken)
        eventually(lambda: reloads(tls, "failed") == failed + 1)
        assert serves(tls, other)
    replace(files.key, key)
    replace(files.certificate, certificate)
    eventually(lambda: serves(tls, authority), what="the certificate from before")

    got += sum(len(event.token_ids) for event in running)
    assert got == 3000
    before.channel.close()


def test_client_authorities_rotated_under_a_stream(mutual, authority, other):
    one, another = authority.issue("client"), other.issue("client")
    before = Secure(mutual, authority, one, TOKEN)
    running = before.stream(2000)
    got = len(next(running).token_ids)
    replace(mutual.files.client_ca, read(other.certificate))
    eventually(lambda: serves(mutual, authority, client=another, token=TOKEN))
    assert Secure(mutual, authority, one, TOKEN).refused()
    replace(mutual.files.client_ca, read(authority.certificate) + read(other.certificate))
    for client in (one, another):
        eventually(lambda: serves(mutual, authority, client=client, token=TOKEN))
    replace(mutual.files.client_ca, read(authority.certificate))
    eventually(lambda: not serves(mutual, authority, client=another, token=TOKEN))
    got += sum(len(event.token_ids) for event in running)
    assert got == 2000
    before.channel.close()


class TestMetricsPort:
    def test_serves_by_tls_and_asks_for_no_certificate(self, mutual, authority):
        assert "sirocco_requests_total" in page(mutual, authority)
        for path in ("/healthz", "/readyz"):
            assert page(mutual, authority, path) == "ok\n"

    def test_not_in_the_clear(self, mutual):
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://{mutual.metrics_address}/metrics", timeout=5)

    def test_a_client_that_does_not_trust_it(self, mutual, other):
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            page(mutual, other)

    @OLD
    def test_old_versions_are_refused(self, mutual, authority):
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            with pytest.raises(OSError, match="ALERT_PROTOCOL_VERSION"):
                page(mutual, authority, version=version)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert page(mutual, authority, "/healthz", version) == "ok\n"

    def test_in_the_clear_where_it_is_not_asked_for(self, tls):
        assert tls.http_status("/metrics") == 200

    def test_takes_the_new_certificate(self, mutual, authority, other):
        files = mutual.files
        certificate, key = read(files.certificate), read(files.key)
        new_certificate, new_key = (read(path) for path in other.issue("server"))
        replace(files.key, new_key)
        replace(files.certificate, new_certificate)

        def shows(issuer):
            try:
                return bool(page(mutual, issuer))
            except OSError:
                return False
        eventually(lambda: shows(other))
        replace(files.key, key)
        replace(files.certificate, certificate)
        eventually(lambda: shows(authority))


class TestStart:
    """What is wrong is one line that names key and file, and exit status 2."""

    @pytest.fixture(scope="class")
    def good(self, authority):
        certificate, key = authority.issue("server")
        return {"tls-certificate": certificate, "tls-key": key}

    def refused(self, bare, flags, *names):
        for command in ("serve", "check-config"):
            result = run_cli(command, "--model", bare, "--listen", "127.0.0.1:0",
                             "--metrics-listen", "127.0.0.1:0",
                             *[part for k, v in flags.items() for part in (f"--{k}", v)])
            lines = [line for line in result.stderr.splitlines() if line.startswith("sirocco: ")]
            assert result.returncode == 2 and len(lines) == 1, result.stderr
            for name in names:
                assert str(name) in lines[0], lines[0]

    @pytest.mark.parametrize("key", ["tls-certificate", "tls-key", "tls-client-ca",
                                     "auth-token-file"])
    @pytest.mark.parametrize("content, what", [
        (None, "No such file"), (b"", "empty"), (b"\0\1\2", ""), ("folder", "no plain file"),
        (b"x" * (2 << 20), "larger"),
    ], ids=["missing", "empty", "garbage", "folder", "large"])
    def test_bad_file(self, bare, good, tmp_path, key, content, what):
        path = tmp_path / "file"
        if content == "folder":
            path.mkdir()
        elif content is not None:
            path.write_bytes(content)
        self.refused(bare, {**good, key: path}, key.replace("-", "_"), path, what)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_unreadable(self, bare, good, tmp_path):
        path = tmp_path / "key"
        path.write_bytes(read(good["tls-key"]))
        path.chmod(0)
        self.refused(bare, {**good, "tls-key": path}, "tls_key", path, "Permission denied")

    def test_a_key_that_does_not_fit(self, bare, good, authority):
        _, key = authority.issue("another")
        self.refused(bare, {**good, "tls-key": key}, "tls_key", key, "does not belong",
                     good["tls-certificate"])

    def test_a_key_with_a_passphrase(self, bare, good, tmp_path):
        path = tmp_path / "key"
        openssl("pkey", "-in", good["tls-key"], "-out", path, "-aes128", "-passout", "pass:word")
        self.refused(bare, {**good, "tls-key": path}, "tls_key", path, "passphrase")

    def test_a_weak_key(self, bare, tmp_path):
        openssl("req", "-x509", "-newkey", "rsa:512", "-nodes", "-keyout", tmp_path / "key",
                "-out", tmp_path / "certificate", "-days", 2, "-subj", "/CN=weak")
        self.refused(bare, {"tls-certificate": tmp_path / "certificate",
                            "tls-key": tmp_path / "key"}, "tls_certificate", "small")

    def test_a_damaged_chain(self, bare, good, tmp_path):
        path = tmp_path / "chain"
        whole = read(good["tls-certificate"])
        path.write_bytes(whole + whole.replace(b"A", b"!", 3))
        self.refused(bare, {**good, "tls-certificate": path}, "tls_certificate", path,
                     "certificate 2")

    @pytest.mark.parametrize("given, missing", [
        ("tls-certificate", "tls_key"), ("tls-key", "tls_certificate"),
    ])
    def test_one_without_the_other(self, bare, good, given, missing):
        self.refused(bare, {given: good[given]}, given.replace("-", "_"), missing)

    def test_what_needs_a_certificate(self, bare, authority):
        self.refused(bare, {"tls-client-ca": authority.certificate}, "tls_client_ca",
                     "tls_certificate")
        self.refused(bare, {"metrics-tls": "true"}, "metrics_tls", "tls_certificate")

    @pytest.mark.parametrize("text, line", [
        ("secret-one\nsecret-two Generat\n", "line 2"),
        ("secret-one Generate, GenerateStream\n", "line 1"),
        ("\n# x\nsecret,one\n", "line 3"),
        ("secret-one\nsecret-one Generate\n", "line 2"),
    ])
    def test_tokens_name_the_line_and_nothing_of_it(self, bare, tmp_path, text, line):
        path = tmp_path / "tokens"
        path.write_text(text)
        self.refused(bare, {"auth-token-file": path}, "auth_token_file", path, line)
        result = run_cli("check-config", "--model", bare, "--auth-token-file", path)
        assert "secret" not in result.stderr
