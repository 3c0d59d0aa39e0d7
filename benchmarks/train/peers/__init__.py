"""The peers of the training benchmark, each as its own documentation advises, in an environment of their own.

They train the same plain LSTM with the same loss, optimizer and clipping, and with their own defaults otherwise.
"""
