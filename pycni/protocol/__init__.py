"""The data types and rules of the CNI specification, without access to files, processes or the kernel.

Uses the standard library only. This file imports nothing, so that a call which needs one module does not load all.
"""
