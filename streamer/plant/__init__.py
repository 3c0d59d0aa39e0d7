"""A plant to develop and to test with: a simulator, and recordings of real sensor data."""
