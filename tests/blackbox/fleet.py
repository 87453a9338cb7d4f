"""Clients that behave as machines do when they are told to shut down."""

import collections
import threading

from harness import Swarm, wait_until


class Fleet:
    """
    Clients in a thread of their own, which do on a 130 what they were added for:
      obey    acknowledge, and leave
      vanish  leave without a word
      ack     acknowledge, and stay
      stay    nothing
    """

    def __init__(self, server):
        self.swarm = Swarm(server, pipelined=True, on_told=self._on_told)
        self.behaviour = {}
        self._todo = collections.deque()
        self._stop = False
        self._failure = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._stop = True
        self._thread.join()
        self.swarm.close()
        if self._failure:
            raise self._failure

    def _run(self):
        try:
            while not self._stop:
                while self._todo:
                    self._todo.popleft()()
                self.swarm.pump(0.02, scaled=False)
        except BaseException as failure:  # raised by check(), in the thread that can fail the test
            self._failure = failure

    def check(self):
        if self._failure:
            raise self._failure
        return True

    def _do(self, work):
        done = threading.Event()
        self._todo.append(lambda: (work(), done.set()))
        wait_until(lambda: self.check() and done.is_set(), what="the fleet's turn")

    def _on_told(self, member):
        behaviour = self.behaviour[member.cid]
        if behaviour in ("obey", "ack"):
            self.swarm.say(member, "130")
        if behaviour in ("obey", "vanish"):
            self.swarm.drop(member)

    def add(self, behaviour, *cids, may_be_told=True):
        """Connects them. Returns when all have their 140."""
        self.behaviour.update(dict.fromkeys(cids, behaviour))
        members = []
        self._do(lambda: members.extend(self.swarm.add_all(cids, may_be_told)))
        wait_until(lambda: self.check() and all(member.was_connected for member in members),
                   15, "the fleet's 140s")
        return members

    def leave(self, *cids):
        self._do(lambda: [self.swarm.drop(member) for member in self.swarm.members
                          if member.cid in cids])

    def sessions(self, cid):
        return [member for member in self.swarm.members if member.cid == cid]

    def told(self, *cids):
        """When each of them was told, in any session."""
        return [member.told for member in list(self.swarm.members)
                if member.told and (not cids or member.cid in cids)]

    def wait_told(self, *cids, times=1, seconds=10):
        """Each of them, that often."""
        wait_until(lambda: self.check() and all(len(self.told(cid)) >= times for cid in cids),
                   seconds, f"a 130 for {cids}")
        assert all(len(self.told(cid)) == times for cid in cids)
