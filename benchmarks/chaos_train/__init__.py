"""Does a trainer that is killed anywhere, cut off and filled up do what a calm one does?

    python -m benchmarks.chaos_train --kills 100 --json

One trainer, killed -9 at random moments and at every border of a phase; Kafka and Redis go and come back, the disk
takes no more, a second trainer starts on another folder. Afterwards every data set must be decided once, versions
rise on the topic, the registry know all of them, and the weights be those of a run that nothing happened to.
"""
