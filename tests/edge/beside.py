"""What goes on beside a `with` block: threads that begin and end with it."""

import threading


class Beside:
    """Runs `run` in so many threads until the block is over, which `over` says; whoever ends by
    itself is waited for as long as `patience` says, in seconds."""

    patience = None

    def __init__(self, n_threads=1):
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(n_threads)]

    def __enter__(self):
        for it in self.threads:
            it.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for it in self.threads:
            it.join(self.patience)

    def run(self):
        raise NotImplementedError
