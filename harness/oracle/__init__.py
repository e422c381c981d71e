"""What must come out: a second implementation of the contract, which shares no code with the pipeline."""
