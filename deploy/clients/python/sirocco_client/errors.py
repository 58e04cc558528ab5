"""What a failed call raises."""
from __future__ import annotations

from typing import Optional

import grpc
from google.rpc import error_details_pb2, status_pb2


class Error(Exception):
    """A call that failed, with what the server said of it."""

    def __init__(self, code: grpc.StatusCode, message: str, retry_after: Optional[float] = None,
                 violations: Optional[dict[str, str]] = None) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        # Seconds after which it may be tried again, where the server said so.
        self.retry_after = retry_after
        # Of INVALID_ARGUMENT: the field and what is wrong with it.
        self.violations = violations or {}

    @classmethod
    def of(cls, error: grpc.RpcError) -> Error:
        """Of what gRPC raised."""
        retry_after, violations = None, {}
        for key, value in error.trailing_metadata() or ():
            if key != "grpc-status-details-bin":
                continue
            for detail in status_pb2.Status.FromString(value).details:
                retry, bad = error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
                if detail.Unpack(retry):
                    retry_after = retry.retry_delay.ToTimedelta().total_seconds()
                elif detail.Unpack(bad):
                    violations = {v.field: v.description for v in bad.field_violations}
        return cls(error.code(), error.details() or "", retry_after, violations)
