"""Collects casting sensor streams from Kafka into windowed, labelled data sets in Redis."""
