"""From the log to profiles, memberships and triggers: one loop that serialises every change of a profile.

May import `daemon.store` and what is below it; the bus and the jobs are told through a callback that `app` hands in.
"""
