"""What a node's memory does while it is attacked."""

from beside import Beside
from nodes import until

#: What an attack may add to the resident memory, and what may stay of it.
PEAK_KIB = 64 * 1024
STAYS_KIB = 32 * 1024
#: The allocator gives memory back after a while.
BACK_S = 20


class Watched(Beside):
    """Looks at a node's memory during a `with` block."""

    def __init__(self, node):
        super().__init__()
        self.node, self.before, self.peak = node, node.memory_kib(), 0

    def run(self):
        while not self.over.wait(0.05):
            self.peak = max(self.peak, self.node.memory_kib())

    def problem(self):
        """Returns what is wrong with what it took, or with what it kept of that."""
        grown = self.peak - self.before
        if grown > PEAK_KIB:
            return f"{grown} KiB more memory, {PEAK_KIB} at most"
        try:
            until("", lambda: self.node.memory_kib() - self.before <= STAYS_KIB, BACK_S)
        except AssertionError:
            return f"{self.node.memory_kib() - self.before} KiB stay, {STAYS_KIB} at most"
        return None

    def told(self):
        grown, stays = self.peak - self.before, self.node.memory_kib() - self.before
        return f"memory +{grown / 1024:.1f} MiB, of which {stays / 1024:.1f} stay"
