"""HTTP/2 by hand, a frame at a time: what no client library would send."""
import socket
import struct
import time

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, \
    CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4  # a setting
CANCEL = 8  # an error code
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def integer(value, prefix):
    """HPACK's, in the low bits of its first byte."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes([value])
    out, value = [most], value - most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def field(name, value):
    """A header that enters no table, in plain text."""
    name, value = name.encode(), value if isinstance(value, bytes) else value.encode()
    return b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value


def call_headers(path, *more):
    return b"".join(field(*pair) for pair in (
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"),
        ("te", "trailers"), ("content-type", "application/grpc"), *more))


def message(payload):
    """A gRPC message, as DATA carries it."""
    return b"\0" + struct.pack(">I", len(payload)) + payload


class Connection:
    """A client's side. What comes is only kept."""

    def __init__(self, address, settings=(), timeout=10):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=timeout)
        self.received = b""
        self.send(PREFACE + frame(SETTINGS, payload=b"".join(
            struct.pack(">HI", key, value) for key, value in settings)))

    def send(self, data):
        """False: the server has closed the connection, or takes nothing more for a second."""
        self.socket.settimeout(1)
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def frames(self, seconds):
        """(kind, flags, stream, payload) of what comes in that time, or until the connection ends;
        the end itself is None."""
        out, end = [], time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(1 << 16)
            except (TimeoutError, socket.timeout):
                break
            except OSError:
                data = b""
            self.received += data
            while len(self.received) >= 9:
                size = int.from_bytes(self.received[:3], "big")
                if len(self.received) < 9 + size:
                    break
                kind, flags, stream = struct.unpack(">BBI", self.received[3:9])
                out.append((kind, flags, stream, self.received[9:9 + size]))
                self.received = self.received[9 + size:]
            if not data:
                out.append(None)
                break
        return out

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
