"""What a connector is written with: declarations, what a run offers, the errors that decide a job's state.

Imports `streams` and libraries only; `catalog` alone looks upward, by scanning the folder.
"""
