"""When a refused call is tried again."""
from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Optional

import grpc

from sirocco_client.errors import Error


# CANCELLED, where it was not this side that cancelled, is what gRPC says of a call that comes in the
# moment in which a server ends.
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@dataclass(frozen=True)
class RetryPolicy:
    """How often, and after which pauses where the server names none."""

    attempts: int = 6  # the first included; 1: no retries
    first_pause: float = 0.1  # seconds; doubled from try to try
    longest_pause: float = 10.0

    def pause(self, tries: int, error: Error) -> Optional[float]:
        """Seconds until the next try, after so many; None: no further one."""
        if tries >= self.attempts:
            return None
        # Clients that were refused together shall not come back together.
        if error.retry_after is not None:
            return error.retry_after * random.uniform(1.0, 1.25)
        # RESOURCE_EXHAUSTED without RetryInfo: the message is too large, and stays so.
        if error.code not in _PASSING:
            return None
        longest: float = min(self.first_pause * 2 ** (tries - 1), self.longest_pause)
        return longest * random.uniform(0.5, 1.0)


class Tries:
    """The tries of one call, which share its timeout."""

    def __init__(self, policy: RetryPolicy, timeout: Optional[float]) -> None:
        self._policy = policy
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._tries = 0

    def remaining(self) -> Optional[float]:
        """Seconds that are left."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0)

    def pause_after(self, failure: grpc.RpcError) -> float:
        """Seconds to wait before the next try.

        Raises:
          Error: what the failure was, where there is no further try, or no time for one.
        """
        self._tries += 1
        error = Error.of(failure)
        pause = self._policy.pause(self._tries, error)
        left = self.remaining()
        if pause is None or (left is not None and pause >= left):
            raise error from failure
        return pause
