"""Lines about peers that a log can bear, however many of them misbehave. No I/O.

A few lines pass in any stretch of time; the rest of it is one line with their number.
"""

from dataclasses import dataclass

LINES = 10  # that pass in one stretch
STRETCH = 10.0  # seconds


@dataclass
class Complaints:
    """Lets some lines pass and counts the others."""

    what: str  # what they are about: "more connections were turned away"
    began: float = float("-inf")  # of the present stretch
    passed: int = 0
    held: int = 0
    last: str = ""

    def passes(self, line: str, now: float) -> bool:
        """Return whether a line is to be written now; else count it."""
        if now >= self.began + STRETCH and not self.held:
            self.began, self.passed = now, 0
        if self.passed < LINES:
            self.passed += 1
            return True
        self.held, self.last = self.held + 1, line
        return False

    def summary(self, now: float) -> str | None:
        """Return, at the end of a stretch, a line for all that did not pass."""
        if not self.held or now < self.began + STRETCH:
            return None
        line = f"{self.held} {self.what} in {now - self.began:.0f} s; the last: "
        self.held, self.passed, self.began = 0, 0, now
        return line + self.last
