"""`cohortd demo`: the main job on real data, with a receiver of its own, shown live.

`purchases` makes the data ready, `receiver` is the destination, `stage` starts and ends processes, `play` does what
the demo does, `watch` asks how far it is, `show` draws that. All talk to the daemon from outside, like any client; of
the daemon's own modules they import only the clock, the lock and the store of tokens.
"""
