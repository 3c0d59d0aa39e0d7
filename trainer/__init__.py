"""Fine-tunes the defect model, lets only better models through, and publishes them."""
