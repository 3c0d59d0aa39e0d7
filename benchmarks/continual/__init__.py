"""Test-then-train along a recording: does the trainer keep a model as fresh as plainer ways of retraining do?"""
