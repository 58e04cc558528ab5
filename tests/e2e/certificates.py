"""Makes certificates, with the openssl program: authorities, servers, clients."""
import datetime
import os
import subprocess


def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


class Authority:
    """One that signs certificates; everything it makes lies in its folder."""

    def __init__(self, folder, name):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        self.certificate, self.key = self._path(f"{name}.pem"), self._path(f"{name}.key")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", self.key, "-out", self.certificate, "-days", 2, "-subj", f"/CN={name}",
                "-addext", "basicConstraints=critical,CA:TRUE")
        self.issued = 0

    def issue(self, name, alternatives="DNS:localhost,IP:127.0.0.1", begins=-1, ends=1):
        """(certificate, key): paths. It is valid from `begins` to `ends`, in days from now."""
        self.issued += 1
        base = self._path(f"{name}-{self.issued}")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", base + ".key", "-out", base + ".csr", "-subj", f"/CN={name}")
        with open(base + ".cnf", "w", encoding="utf-8") as file:
            file.write(f"[e]\nsubjectAltName={alternatives}\n"
                       "[ca]\ndefault_ca=d\n[d]\npolicy=p\nunique_subject=no\nemail_in_dn=no\n"
                       f"database={base}.index\nserial={base}.serial\nnew_certs_dir={self.folder}\n"
                       "[p]\ncommonName=supplied\n")
        open(base + ".index", "w", encoding="utf-8").close()
        with open(base + ".serial", "w", encoding="utf-8") as file:
            file.write(f"{self.issued:04X}\n")
        now = datetime.datetime.now(datetime.timezone.utc)

        def at(days):
            return (now + datetime.timedelta(days=days)).strftime("%Y%m%d%H%M%SZ")
        # `openssl x509` cannot say when a certificate begins.
        openssl("ca", "-batch", "-notext", "-config", base + ".cnf", "-extfile", base + ".cnf",
                "-extensions", "e", "-in", base + ".csr", "-out", base + ".pem",
                "-cert", self.certificate, "-keyfile", self.key, "-md", "sha256",
                "-startdate", at(begins), "-enddate", at(ends))
        return base + ".pem", base + ".key"

    def _path(self, name):
        return os.path.join(self.folder, name)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def replace(path, content):
    """As a careful administrator does it: at once, and for nobody else to read."""
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    os.replace(path + ".new", path)
