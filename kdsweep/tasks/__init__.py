"""What is learnt? A task says what a sample is, how batches are made, and what a good model is."""
