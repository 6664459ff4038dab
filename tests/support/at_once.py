"""Calls at the same time, in a thread each."""

import threading

LIMIT = 600  # seconds: only a hang takes that long, also on a busy machine under a sanitizer


def at_once(*calls):
    """Runs each call in a thread; all start together. Raises the first error of any of them."""
    barrier, errors = threading.Barrier(len(calls)), []

    def start(call):
        barrier.wait(LIMIT)
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=start, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]
