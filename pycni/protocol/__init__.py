"""The CNI specification as frozen values: no files, no processes, no kernel, the standard library alone.

Every module is about one noun of the specification; import what you need from it. (This file imports nothing:
VERSION must not pay for the rest.)
"""
